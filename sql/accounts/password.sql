-- What a change of an account's password is checked against.
-- returns: value
-- params: user_id bigint
-- index: users_pkey
select u.password_hash
from users as u
where u.id = $1;
