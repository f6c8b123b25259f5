-- One row for every change of a task, written by a trigger in the transaction that makes the change: whoever makes it, a
-- change that is committed has its event, and one that is rolled back has none.
--
-- Locks: `share row exclusive` on tasks and `share row exclusive` on users for the moment in which the triggers and the
-- foreign key are made.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table task_events (
    id bigint generated always as identity,
    xid xid8 not null default pg_current_xact_id(),
    type text collate "C" not null,
    task_id bigint not null,
    user_id bigint not null,
    previous_user_id bigint,
    actor_id bigint,
    at timestamptz not null default clock_timestamp(),
    changes json,
    task json not null,
    size bigint not null,
    constraint task_events_pkey primary key (id),
    constraint task_events_type_check check (
        type in ('task.created', 'task.updated', 'task.deleted', 'task.restored')
    )
);

comment on table task_events is 'Every change of a task, kept EVENT_RETENTION_DAYS. Outlives its task and its owner.';
comment on column task_events.id is
'Rises with the order in which changes were made; a transaction that commits late shows an id lower than others.';
comment on column task_events.xid is 'The transaction: by it a reader knows what its last look could not see yet.';
comment on column task_events.user_id is 'The owner after the change.';
comment on column task_events.previous_user_id is 'The owner before, where the change gave the task to another.';
comment on column task_events.actor_id is 'Who asked the API for it; null for a change past the API.';
comment on column task_events.changes is 'Of an update: `{"status": ["todo", "done"]}`.';
comment on column task_events.task is 'The task after the change, the last one of a task that is gone, as the API shows it.';
comment on column task_events.size is 'Bytes of task and changes, so that a page is cut before it is read.';

-- What a look could not see: transactions that were open then (few, each found by its xid).
create index task_events_xid_idx on task_events (xid, id);
-- A user's events since a look, and those of a task (its history).
create index task_events_user_idx on task_events (user_id, id);
create index task_events_previous_user_idx on task_events (previous_user_id, id) where previous_user_id is not null;
create index task_events_task_idx on task_events (task_id, id);

-- How far retention has come: a reader that stopped before that has missed events.
create table task_event_horizon (
    one boolean not null default true,
    expired_id bigint not null default 0,
    constraint task_event_horizon_pkey primary key (one),
    constraint task_event_horizon_one_check check (one)
);

comment on table task_event_horizon is 'One row: the greatest id of an event that retention has taken away.';
insert into task_event_horizon default values;

-- Positions are good for one history. A failover starts a new timeline, a restore makes a new table, and another cluster
-- has another identifier; on each of them the database may have lost what a listener has seen.
create function task_event_epoch() returns text
stable
language sql
return (
    select s.system_identifier::text || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.' || 'task_events'::regclass::oid::text
    from pg_control_system() as s
);

create function task_json(t tasks) returns json
stable
language sql
return json_object(
    'id': t.id,
    'title': t.title,
    'description': t.description,
    'status': t.status,
    'city': t.city,
    'weather': t.weather,
    'user_id': t.user_id,
    'created_at': to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'updated_at': to_char(t.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'version': t.version
    returning json
);

-- `changes` of an update: each field that has another value now, with the value before and the value now.
create function task_changes(o tasks, n tasks) returns json
stable
language sql
return json_object(
    'title': case when o.title <> n.title then json_array(o.title, n.title) end,
    'description': case when o.description is distinct from n.description then json_array(o.description, n.description null on null) end,
    'status': case when o.status <> n.status then json_array(o.status, n.status) end,
    'city': case when o.city is distinct from n.city then json_array(o.city, n.city null on null) end,
    'weather': case when o.weather is distinct from n.weather then json_array(o.weather, n.weather null on null returning json) end,
    'user_id': case when o.user_id <> n.user_id then json_array(o.user_id, n.user_id) end,
    'created_at': case when o.created_at <> n.created_at then json_array(
        to_char(o.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(n.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ) end
    absent on null
    returning json
);

create function tasks_record_event() returns trigger
language plpgsql as $$
declare
    kind text := 'task.created';
    shown json;
    changed json;
    owner_before bigint;
begin
    if tg_op = 'UPDATE' then
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
    insert into task_events (type, task_id, user_id, previous_user_id, actor_id, changes, task, size)
    values (
        kind,
        new.id,
        new.user_id,
        owner_before,
        nullif(current_setting('service.actor_id', true), '')::bigint,
        changed,
        shown,
        octet_length(shown::text) + coalesce(octet_length(changed::text), 0)
    );
    -- The service's own sessions leave it to their process, which sends one for many: this one holds a lock of the whole
    -- cluster over the commit.
    if current_setting('application_name') not like 'task-manager%' then
        perform pg_notify('task_events', '');
    end if;
    return null;
end
$$;

create trigger tasks_record_event
after insert or update or delete on tasks
for each row execute function tasks_record_event();

-- TRUNCATE fires no row's trigger.
create function tasks_refuse_truncate() returns trigger
language plpgsql as $$
begin
    raise exception 'tasks cannot be truncated: no listener would hear of it'
        using errcode = 'feature_not_supported', hint = 'Use DELETE.';
end
$$;

create trigger tasks_refuse_truncate
before truncate on tasks
for each statement execute function tasks_refuse_truncate();

-- Who hears of events is held to the account's present role: a change closes what was opened with the role before.
create function users_announce() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' or new.role <> old.role then
        perform pg_notify('accounts', old.id::text);
    end if;
    return null;
end
$$;

create trigger users_announce
after update or delete on users
for each row execute function users_announce();

-- One use of `POST /auth/ticket`: instead of a token in a URL, which proxies and servers log.
create table tickets (
    hash bytea not null,
    user_id bigint not null,
    expires_at timestamptz not null default now() + interval '30 seconds',
    access_expires_at timestamptz,
    constraint tickets_pkey primary key (hash),
    constraint tickets_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);

comment on table tickets is 'Tickets that were not used yet; a used one is gone, an expired one goes with the next.';
comment on column tickets.hash is 'SHA-256 of the ticket: who reads the table cannot use it.';
comment on column tickets.access_expires_at is 'When what it was asked for with expires; null where it does not.';
create index tickets_expires_idx on tickets (expires_at);
create index tickets_user_idx on tickets (user_id);
