-- The present roles of accounts.
-- returns: rows
-- params: user_ids bigint[]
-- index: users_pkey
select
    u.id,
    u.role
from users as u
where u.id = any($1);
