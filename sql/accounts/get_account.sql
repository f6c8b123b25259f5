-- Return one account with what only administrators see.
-- returns: row?
-- params: user_id bigint
-- index: users_pkey
select a.*
from account_view as a
where a.id = $1;
