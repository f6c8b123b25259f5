-- Attachments of tasks: what is known of each file; the bytes are in the store that ATTACHMENTS_URL names, under `key`.
--
-- One that comes or goes, whoever does it, is a change of its task: it moves the version on, and is an event. The task's row
-- says which it was, so that the event is written as for any other column.
--
-- Locks: `access exclusive` on tasks, `share row exclusive` on users, for a moment; the new column is null, so no row is
-- rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table attachments (
    id bigint generated always as identity,
    task_id bigint not null,
    added_by bigint,
    key text collate "C" not null,
    filename text collate "C" not null,
    content_type text collate "C" not null,
    size bigint not null,
    sha256 text collate "C" not null,
    created_at timestamptz not null default now(),
    constraint attachments_pkey primary key (id),
    constraint attachments_key_key unique (key),
    constraint attachments_task_id_fkey foreign key (task_id) references tasks (id) on delete cascade,
    constraint attachments_added_by_fkey foreign key (added_by) references users (id) on delete set null,
    -- The service's own names: what a row says never leads out of the store.
    constraint attachments_key_check check (key ~ '^[0-9a-f]{32}/[0-9a-f]{32}$'),
    -- A name and no path, without what controls how it is shown.
    constraint attachments_filename_check check (
        char_length(filename) <= 255
        and filename ~ '\S'
        and filename not in ('.', '..')
        and filename !~ '[/\\\u0001-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]'
    ),
    constraint attachments_content_type_check check (content_type ~ '^[!-.0-~]{1,100}/[!-.0-~]{1,100}$'),
    constraint attachments_size_check check (size >= 0),
    constraint attachments_sha256_check check (sha256 ~ '^[0-9a-f]{64}$'),
    constraint attachments_created_at_check check (created_at >= '0001-01-02' and created_at < '9999-12-30')
);

comment on table attachments is 'Files of tasks; the bytes are in the store, under `key`.';
comment on column attachments.added_by is 'Who added it, and whose quota it takes; null for one added past the API.';
comment on column attachments.key is 'Where its bytes are in the store: a name of the service''s own.';
comment on column attachments.filename is 'The client''s name for it: shown, and never a path.';
comment on column attachments.content_type is 'What its content shows, and not what was claimed.';

create index attachments_task_idx on attachments (task_id, id);
create index attachments_added_by_idx on attachments (added_by) include (size);

-- The one shape in which an attachment leaves the database.
create view attachment_view as
select
    a.id,
    a.task_id,
    a.filename,
    a.content_type,
    a.size,
    a.sha256,
    a.created_at
from attachments as a;

create function attachment_json(a attachments) returns jsonb
stable
language sql
return json_object(
    'id': a.id,
    'task_id': a.task_id,
    'filename': a.filename,
    'content_type': a.content_type,
    'size': a.size,
    'sha256': a.sha256,
    'created_at': to_char(a.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    returning jsonb
);

alter table tasks add column attachment_change jsonb;

comment on column tasks.attachment_change is
'Which of its attachments came or went last: `[before, after]`, null where it was not there before or is not any more.';

-- What comes back with its task is part of `task.restored`, and what goes with it of `task.deleted`, whose row is gone here.
create function attachments_change_task() returns trigger
language plpgsql as $$
declare
    before jsonb;
    after jsonb;
begin
    if current_setting('service.event_type', true) = 'task.restored' then
        return null;
    end if;
    if tg_op <> 'INSERT' then
        before := attachment_json(old);
    end if;
    if tg_op <> 'DELETE' then
        after := attachment_json(new);
    end if;
    if before ->> 'task_id' <> after ->> 'task_id' then
        update tasks set attachment_change = jsonb_build_array(before, null) where id = old.task_id;
        before := null;
    end if;
    if before is distinct from after then
        update tasks set attachment_change = jsonb_build_array(before, after)
        where id = case when tg_op = 'DELETE' then old.task_id else new.task_id end;
    end if;
    return null;
end
$$;

create trigger attachments_change_task
after insert or update or delete on attachments
for each row execute function attachments_change_task();

-- TRUNCATE fires no row's trigger.
create function attachments_refuse_truncate() returns trigger
language plpgsql as $$
begin
    raise exception 'attachments cannot be truncated: no listener would hear of it, and their files would stay'
        using errcode = 'feature_not_supported', hint = 'Use DELETE.';
end
$$;

create trigger attachments_refuse_truncate
before truncate on attachments
for each statement execute function attachments_refuse_truncate();

create or replace function task_changes(o tasks, n tasks) returns json
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
    ) end,
    'attachments': case when o.attachment_change is distinct from n.attachment_change then n.attachment_change end
    absent on null
    returning json
);
