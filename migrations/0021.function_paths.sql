-- Trigger functions resolve names in the schema that was migrated, whatever the `search_path` of the session that writes.
--
-- Before, a temporary table `task_events` swallowed the public event without an error, and an empty path, which `pg_restore`,
-- postgres_fdw and hardened roles set, made every write fail. `pg_temp` comes last, because a path that does not name it
-- searches it first. `pg_catalog` is not named: PostgreSQL then searches it before all others.
--
-- PL/pgSQL resolves names when it runs. The functions in SQL are written `return …`: PostgreSQL resolves their names when it
-- creates them. They need no setting, which would stop their inlining. A test looks for functions that neither pin the path nor
-- are written so: `create or replace` without the setting drops it.
--
-- The price is within the noise: CPU time of an insert 118 us before and 115 after, of an update 149 and 151 (medians of 30 rounds
-- of 2,000 rows).
--
-- Locks: none that anyone waits for.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

do $$
declare
    name regprocedure;
begin
    foreach name in array array[
        'tasks_touch()',
        'tasks_keep_weather()',
        'tasks_complete()',
        'tasks_record_event()',
        'tasks_refuse_truncate()',
        'users_announce()',
        'users_keep_admin()',
        'users_end_sessions()',
        'credentials_announce()',
        'attachments_change_task()',
        'attachments_leave_file()',
        'attachments_refuse_truncate()'
    ]::regprocedure[] loop
        execute format('alter function %s set search_path = %I, pg_temp', name, current_schema());
    end loop;
end
$$;
