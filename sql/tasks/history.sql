-- A page of what has happened to one task, the newest first, and whether the viewer may see it.
-- returns: rows
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, before_id bigint?, row_limit bigint
-- index: tasks_pkey, task_events_task_idx
-- nullable: id, type, task_id, user_id, at, task
-- why: it belongs to the present owner; that of a deleted task is in its last event. Where there is a task or an event
--   there is a row, so that the verdict comes along, without an id where nothing is to be seen.
with target as materialized (
    select coalesce(
        (
            select t.user_id
            from tasks as t
            where t.id = $1
        ),
        (
            select e.user_id
            from task_events as e
            where e.task_id = $1
            order by e.id desc
            limit 1
        )
    ) as owner_id
)

select
    e.*,
    e.id is not null as is_event,
    case when target.owner_id = $2 or $3 then 'ok' else 'forbidden' end as verdict
from target
left join lateral (
    select
        e.id,
        e.type,
        e.task_id,
        e.user_id,
        e.actor_id,
        e.at,
        e.changes,
        e.task
    from task_events as e
    where
        e.task_id = $1
        and (target.owner_id = $2 or $3)
        and ($4::bigint is null or e.id < $4)
    order by e.id desc
    limit $5
) as e on true
where target.owner_id is not null
order by e.id desc;
