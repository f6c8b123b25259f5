-- Return whether there is an administrator.
-- returns: value
-- scans: users
select count(*) > 0 as has_admin
from users as u
where u.role = 'admin';
