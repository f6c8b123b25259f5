-- List a page of one task's events, the newest first, and whether the viewer may see it.
-- returns: rows
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, before_id bigint?, row_limit bigint,
--   byte_limit bigint
-- index: tasks_pkey, task_events_task_idx, task_events_pkey
-- nullable: id, type, task_id, user_id, at, task, found_count
-- why: it belongs to the present owner; that of a deleted task is in its last event. Where there is a task or an event
--   there is a row, so that the verdict comes along, without an id where nothing is to be seen.
--   Of the found_count events that row_limit leaves, byte_limit leaves the first and those that begin before it.
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
),

found as (
    select e.*
    from target
    cross join lateral (
        select
            e.id,
            e.size
        from task_events as e
        where
            e.task_id = $1
            and (target.owner_id = $2 or $3)
            and ($4::bigint is null or e.id < $4)
        order by e.id desc
        limit $5
    ) as e
),

measured as materialized (
    select
        f.id,
        sum(f.size) over (order by f.id desc) - f.size as bytes_before,
        count(*) over () as found_count
    from found as f
),

page as (
    select
        e.id,
        e.type,
        e.task_id,
        e.user_id,
        e.actor_id,
        e.at,
        e.changes,
        e.task,
        m.found_count
    from measured as m
    inner join task_events as e on m.id = e.id
    where m.bytes_before < $6::bigint
)

select
    e.*,
    e.id is not null as is_event,
    case when target.owner_id = $2 or $3 then 'ok' else 'forbidden' end as verdict
from target
left join page as e on true
where target.owner_id is not null
order by e.id desc;
