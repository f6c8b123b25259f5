-- Accounts: who may log in, and as what.
--
-- Locks: none that anyone waits for; the table is new.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table users (
    id bigint generated always as identity,
    username text collate "C" not null,
    password_hash text not null,
    role text collate "C" not null default 'user',
    created_at timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_username_check check (username ~ '^[A-Za-z0-9._-]{3,50}$'),
    constraint users_role_check check (role in ('user', 'admin')),
    constraint users_created_at_check check (created_at >= '0001-01-02' and created_at < '9999-12-30')
);

comment on table users is 'Accounts.';
comment on column users.username is 'As its owner wrote it; unique without regard to case.';
comment on column users.password_hash is 'bcrypt over base64(HMAC-SHA256(NFC(password))); see service/security.py.';

-- Unique on the lower form and not on citext, which is an extension: usernames are ASCII by their check.
create unique index users_username_key on users (lower(username));

-- The one shape in which an account leaves the database: without its password.
create view user_view as
select
    u.id,
    u.username,
    u.role,
    u.created_at
from users as u;
