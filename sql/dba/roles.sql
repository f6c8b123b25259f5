-- Create or repair the roles: an owner who migrates, the service that reads and writes rows, and a reader.
-- returns: script
-- why: as a superuser, in the service's database, by `psql -v ON_ERROR_STOP=1 -f sql/dba/roles.sql`. The roles have no
--   password yet: `\password tasks_app`. What is there becomes the owner's; what the owner's migrations make later is
--   the others' to use at once. The reader sees no secrets: neither passwords' hashes nor what stands for a session, a
--   key, a ticket or an answer that was kept.
begin;

do $$
declare
    one text;
begin
    foreach one in array array['tasks_owner', 'tasks_app', 'tasks_reader'] loop
        if not exists (select from pg_roles as r where r.rolname = one) then
            execute format('create role %I login', one);
        end if;
    end loop;
end
$$;

alter role tasks_owner set lock_timeout = '5s';
alter role tasks_owner set idle_in_transaction_session_timeout = '5min';
alter role tasks_app set statement_timeout = '30s';
alter role tasks_app set lock_timeout = '2s';
alter role tasks_app set idle_in_transaction_session_timeout = '30s';
alter role tasks_app set idle_session_timeout = '1h';
alter role tasks_reader set statement_timeout = '60s';
alter role tasks_reader set lock_timeout = '1s';
alter role tasks_reader set idle_in_transaction_session_timeout = '60s';
alter role tasks_reader set idle_session_timeout = '1h';
alter role tasks_reader set default_transaction_read_only = on;

-- What is there, and not an extension's, becomes the owner's.
do $$
declare
    one record;
begin
    execute format('alter schema %I owner to tasks_owner', current_schema());
    for one in
        select
            case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end as kind,
            c.oid::regclass::text as name
        from pg_class as c
        where
            c.relnamespace = current_schema()::regnamespace
            and (
                c.relkind in ('r', 'p', 'v')
                or c.relkind = 'S' and not exists (
                    select from pg_depend as d where d.objid = c.oid and d.deptype in ('a', 'i')
                )
            )
            and not exists (select from pg_depend as d where d.objid = c.oid and d.deptype = 'e')
        union all
        select 'function', p.oid::regprocedure::text
        from pg_proc as p
        where
            p.pronamespace = current_schema()::regnamespace
            and not exists (select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')
        union all
        select 'text search configuration', c.oid::regconfig::text
        from pg_ts_config as c
        where c.cfgnamespace = current_schema()::regnamespace
        union all
        select 'text search dictionary', d.oid::regdictionary::text
        from pg_ts_dict as d
        where d.dictnamespace = current_schema()::regnamespace
    loop
        execute format('alter %s %s owner to tasks_owner', one.kind, one.name);
    end loop;
    execute format('grant connect, create on database %I to tasks_owner', current_database());
    execute format('grant connect on database %I to tasks_app, tasks_reader', current_database());
    execute format('revoke temporary on database %I from public', current_database());
    execute format('revoke create on schema %I from public', current_schema());
    execute format('grant usage on schema %I to tasks_app, tasks_reader', current_schema());
    execute format('grant select, insert, update, delete on all tables in schema %I to tasks_app', current_schema());
    execute format('grant usage, select on all sequences in schema %I to tasks_app', current_schema());
    execute format('grant select on all tables in schema %I to tasks_reader', current_schema());
    execute format(
        'alter default privileges for role tasks_owner in schema %I'
        ' grant select, insert, update, delete on tables to tasks_app', current_schema()
    );
    execute format(
        'alter default privileges for role tasks_owner in schema %I grant usage, select on sequences to tasks_app',
        current_schema()
    );
    execute format(
        'alter default privileges for role tasks_owner in schema %I revoke select on tables from tasks_reader',
        current_schema()
    );
    -- yoyo's own tables say which migrations there were: the service reads them, and only the owner writes them.
    for one in
        select c.oid::regclass::text as name from pg_class as c
        where
            c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
            and (c.relname like '\_yoyo%' or c.relname = 'yoyo_lock')
    loop
        execute format('revoke insert, update, delete on %s from tasks_app', one.name);
    end loop;
end
$$;

-- What the reader does not see; of an account the rest.
revoke select on users, sessions, api_keys, tickets, idempotency_keys from tasks_reader;
grant select (id, username, role, active, created_at) on users to tasks_reader;
grant select (id, user_id, created_at, last_used_at, expires_at) on sessions to tasks_reader;
grant select (id, user_id, name, read_only, created_at, expires_at, last_used_at) on api_keys to tasks_reader;
grant select (user_id, route, claimed_at, claimed_until, status) on idempotency_keys to tasks_reader;

-- Figures of all sessions, for `sql top` and sql/dba/.
grant pg_read_all_stats to tasks_reader;

commit;
