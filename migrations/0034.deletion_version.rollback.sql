-- A deletion's event has the version of the task before it, again.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function tasks_record_event() returns trigger
language plpgsql as $$
declare
    kind text := 'task.created';
    said text := nullif(current_setting('service.event_type', true), '');
    shown json;
    changed json;
    owner_before bigint;
begin
    if tg_op = 'INSERT' and said = 'task.restored' then
        kind := said;
    elsif tg_op = 'UPDATE' then
        if new.version = old.version then
            return null;
        end if;
        kind := 'task.updated';
        changed := task_changes(old, new);
        owner_before := nullif(old.user_id, new.user_id);
    elsif tg_op = 'DELETE' then
        kind := 'task.deleted';
        new := old;
    end if;
    shown := task_json(new);
    insert into task_events (type, task_id, user_id, previous_user_id, actor_id, changes, task, size, completed_at)
    values (
        kind,
        new.id,
        new.user_id,
        owner_before,
        nullif(current_setting('service.actor_id', true), '')::bigint,
        changed,
        shown,
        octet_length(shown::text) + coalesce(octet_length(changed::text), 0),
        new.completed_at
    );
    -- The service's own sessions leave it to their process, which sends one for many: this one holds a lock of the whole
    -- cluster over the commit.
    if current_setting('application_name') not like 'task-manager%' then
        perform pg_notify('task_events', '');
    end if;
    return null;
end
$$;

do $$
begin
    execute format('alter function tasks_record_event() set search_path = %I, pg_temp', current_schema());
end
$$;
