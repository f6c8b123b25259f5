-- Create the first administrator if there is none and the name is free.
-- returns: count
-- params: username text, password_hash text
-- scans: users
-- raises: users_username_check -> invalid
-- why: several replicas start at once; one of them inserts and the others find the name taken.
insert into users (username, password_hash, role)
select
    $1::text as username,
    $2::text as password_hash,
    'admin' as role
where
    not exists (
        select u.id
        from users as u
        where u.role = 'admin'
    )
on conflict do nothing;
