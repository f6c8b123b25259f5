-- Delete one task if the viewer may and its version is one of those expected.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, expected_versions bigint[]?
-- index: tasks_pkey
-- notifies: task_events
-- why: the trigger that records the event reads the actor from the setting.
--   The row is locked first, so that the verdict speaks of the version that is then deleted. `refused`: a trigger that
--   a DBA added discards the deletion.
with actor as materialized (
    select set_config('service.actor_id', $2::bigint::text, true)
),

target as materialized (
    select
        t.id,
        t.version,
        case
            when not (t.user_id = $2 or $3) then 'forbidden'
            when t.version <> all($4::bigint[]) then 'stale'
            else 'ok'
        end as verdict
    from actor
    cross join tasks as t
    where t.id = $1
    for update of t
),

deleted as (
    delete from tasks as t
    using target
    where t.id = target.id and target.verdict = 'ok'
    returning t.id
)

select
    target.version,
    case when target.verdict = 'ok' and deleted.id is null then 'refused' else target.verdict end as verdict
from target
left join deleted on true;
