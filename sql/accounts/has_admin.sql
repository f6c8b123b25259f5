-- Whether there is an administrator.
-- returns: value
select count(*) > 0 as has_admin
from users as u
where u.role = 'admin';
