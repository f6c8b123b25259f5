-- Delete one attachment of a task if the viewer may.
-- returns: row?
-- params: task_id bigint, attachment_id bigint, viewer_id bigint, viewer_is_admin boolean
-- index: tasks_pkey, attachments_pkey
-- notifies: task_events
-- why: the trigger that records the event reads the actor from the setting. The task's row is locked first, as one
--   trigger changes it; another leaves the file to be removed.
with actor as materialized (
    select set_config('service.actor_id', $3::bigint::text, true)
),

target as materialized (
    select
        t.id,
        t.user_id = $3 or $4 as is_permitted
    from actor
    cross join tasks as t
    where t.id = $1
    for no key update of t
),

deleted as (
    delete from attachments as a
    using target
    where a.id = $2 and a.task_id = target.id and target.is_permitted
    returning a.id
)

select
    case
        when not target.is_permitted then 'forbidden'
        when deleted.id is null then 'absent'
        else 'ok'
    end as verdict
from target
left join deleted on true;
