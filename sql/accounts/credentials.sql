-- Return what a log-in is verified against, by username without regard to case.
-- returns: row?
-- params: username text
-- index: users_username_key
select
    u.id,
    u.role,
    u.active,
    u.password_hash
from users as u
where lower(u.username) = lower($1);
