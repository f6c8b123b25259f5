-- Return one account.
-- returns: row?
-- params: user_id bigint
-- index: users_pkey
select u.*
from user_view as u
where u.id = $1;
