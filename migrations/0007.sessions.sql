-- Sessions, API keys, and accounts that can be switched off.
--
-- Locks: `access exclusive` on users and `access exclusive` on tickets for a moment; the new columns are null or have a
-- constant default, so no row is rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table users add column active boolean not null default true;
comment on column users.active is 'Whether it may do anything; one that is not keeps its tasks.';

-- An account as its administrators see it.
create view account_view as
select
    u.id,
    u.username,
    u.role,
    u.active,
    u.created_at
from users as u;

create table sessions (
    id bigint generated always as identity,
    user_id bigint not null,
    created_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    expires_at timestamptz not null,
    client_address text,
    user_agent text,
    secret bytea not null,
    refresh_hash bytea not null,
    previous_hash bytea,
    constraint sessions_pkey primary key (id),
    constraint sessions_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);

comment on table sessions is 'One row for each log-in that is not over: what ends it deletes the row.';
comment on column sessions.last_used_at is 'When its refresh token was last used.';
comment on column sessions.secret is 'With a spent refresh token it gives the next one: SHA-256 over both.';
comment on column sessions.refresh_hash is 'SHA-256 of the refresh token that is good now.';
comment on column sessions.previous_hash is 'SHA-256 of the one before, which answers for ten seconds more.';

create unique index sessions_refresh_key on sessions (refresh_hash);
create index sessions_previous_idx on sessions (previous_hash) where previous_hash is not null;
create index sessions_user_idx on sessions (user_id, id);
create index sessions_expires_idx on sessions (expires_at);

create table api_keys (
    id bigint generated always as identity,
    user_id bigint not null,
    name text not null,
    hash bytea not null,
    read_only boolean not null default false,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint api_keys_name_check check (char_length(name) between 1 and 100 and name ~ '\S'),
    constraint api_keys_expires_at_check check (expires_at >= '0001-01-02' and expires_at < '9999-12-30')
);

comment on table api_keys is 'Keys of machines; one that is revoked is gone.';
comment on column api_keys.hash is 'SHA-256 of the key: who reads the table cannot use it.';
create unique index api_keys_hash_key on api_keys (hash);
create index api_keys_user_idx on api_keys (user_id, id);

-- The one shape in which a key is shown: without what it is.
create view api_key_view as
select
    k.id,
    k.name,
    k.read_only,
    k.created_at,
    k.expires_at,
    k.user_id
from api_keys as k;

-- What processes remember of an account's sessions and keys is forgotten, and its sockets are looked at again.
create or replace function users_announce() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' or (new.role, new.active) <> (old.role, old.active) then
        perform pg_notify('accounts', old.id::text);
    end if;
    return null;
end
$$;

create function credentials_announce() returns trigger
language plpgsql as $$
begin
    perform pg_notify('accounts', old.user_id::text);
    return null;
end
$$;

create trigger sessions_announce
after delete on sessions
for each row execute function credentials_announce();

create trigger api_keys_announce
after update or delete on api_keys
for each row execute function credentials_announce();

-- There is always somebody who can let others in. Two who demote each other at once take turns, and the second one is
-- refused: a check before the change would let both through.
create function users_keep_admin() returns trigger
language plpgsql as $$
begin
    if old.role = 'admin' and old.active and (tg_op = 'DELETE' or new.role <> 'admin' or not new.active) then
        perform pg_advisory_xact_lock(hashtext('users_keep_admin'));
        if current_setting('transaction_isolation') = 'read committed' then
            perform from users as u where u.role = 'admin' and u.active limit 1;
        else -- its snapshot is older than its turn: the lock fails where that administrator has changed since
            perform from users as u where u.role = 'admin' and u.active limit 1 for share;
        end if;
        if not found then
            raise exception 'the last active administrator stays'
                using errcode = 'check_violation', constraint = 'users_last_admin', table = 'users';
        end if;
    end if;
    return null;
end
$$;

create constraint trigger users_last_admin
after update or delete on users
for each row execute function users_keep_admin();

-- Who knew the password before is out, and so is an account that is switched off, whoever makes the change. A statement
-- would not see the session of a log-in that it waited for (accounts.open_session holds the account).
create function users_end_sessions() returns trigger
language plpgsql as $$
begin
    delete from sessions as s
    where s.user_id = new.id
    and s.id is distinct from nullif(current_setting('service.kept_session_id', true), '')::bigint;
    return null;
end
$$;

create trigger users_end_sessions
after update of password_hash, active on users
for each row when (new.password_hash <> old.password_hash or not new.active)
execute function users_end_sessions();

-- What a ticket was asked for with: who uses it is held to that.
alter table tickets
add column session_id bigint,
add column key_id bigint;
