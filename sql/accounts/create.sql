-- Create an account.
-- returns: row
-- params: username text, password_hash text, role text
-- raises: users_username_key -> conflict, users_username_check -> invalid, users_role_check -> invalid
insert into users (username, password_hash, role)
values ($1, $2, $3)
returning id, username, role, created_at;
