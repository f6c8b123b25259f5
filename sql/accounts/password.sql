-- Return the password hash that a change of password is verified against.
-- returns: value
-- params: user_id bigint
-- index: users_pkey
select u.password_hash
from users as u
where u.id = $1;
