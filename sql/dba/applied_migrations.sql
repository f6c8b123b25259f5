-- List the applied migrations, in the order in which they came.
-- returns: rows
select m.migration_id::text as migration_id
from _yoyo_migration as m
order by m.applied_at_utc, m.migration_id;
