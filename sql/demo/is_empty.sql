-- Return whether there are no tasks, and no accounts but administrators'.
-- returns: value
-- scans: tasks, users
-- why: an operator may have made an administrator before.
select
    not exists (
        select t.id
        from tasks as t
    )
    and not exists (
        select u.id
        from users as u
        where u.role <> 'admin'
    ) as is_empty;
