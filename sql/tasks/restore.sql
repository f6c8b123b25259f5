-- Restore a deleted task as its last event has it, if the viewer may and that is not too long ago.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean
-- index: tasks_pkey, task_events_task_idx, users_pkey
-- raises: tasks_user_id_fkey -> unauthorized
-- notifies: task_events
-- nullable: id, title, user_id, created_at, updated_at, version
-- why: the trigger that records the event reads the actor and what this is from the settings.
--   Runs behind tasks.lock_restoration. A DBA's insert may still come between: then it is that task, and this is none.
with asked as materialized (
    select
        $1::bigint as task_id,
        set_config('service.actor_id', $2::bigint::text, true) as actor,
        set_config('service.event_type', 'task.restored', true) as event_type
),

target as materialized (
    select
        e.task,
        e.completed_at,
        case
            when not (coalesce(t.user_id, e.user_id) = $2 or $3) then 'forbidden'
            when t.id is not null then 'present'
            when e.type <> 'task.deleted' or e.at < now() - interval '30 days' then 'gone'
            when u.id is null then 'ownerless'
            else 'ok'
        end as verdict
    from asked
    left join tasks as t on asked.task_id = t.id
    left join lateral (
        select
            e.task,
            e.completed_at,
            e.type,
            e.at,
            e.user_id
        from task_events as e
        where e.task_id = asked.task_id
        order by e.id desc
        limit 1
    ) as e on true
    left join users as u on e.user_id = u.id
    where coalesce(t.user_id, e.user_id) is not null
),

restored as (
    insert into tasks as t (
        id, title, description, status, city, weather, user_id, created_at, updated_at, version, completed_at
    )
    overriding system value
    select
        o.id,
        o.title,
        o.description,
        o.status,
        o.city,
        o.weather,
        o.user_id,
        o.created_at,
        greatest(now(), o.updated_at) as updated_at,
        o.version + 1 as next_version,
        coalesce(target.completed_at, o.updated_at) as completed_at
    from target
    cross join lateral json_populate_record(null::task_view, target.task) as o
    where target.verdict = 'ok'
    on conflict (id) do nothing
    returning
        t.id,
        t.title,
        t.description,
        t.status,
        t.city,
        t.weather,
        t.user_id,
        t.created_at,
        t.updated_at,
        t.version
)

select
    restored.*,
    case when target.verdict = 'ok' and restored.id is null then 'present' else target.verdict end as verdict
from target
left join restored on true;
