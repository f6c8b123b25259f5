-- Return the last id that a task was assigned, uncommitted ones included.
-- returns: value
-- why: `sql plans` sees by it how far one long insert has come.
select s.last_value
from tasks_id_seq as s;
