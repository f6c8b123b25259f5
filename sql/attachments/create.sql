-- Create an attachment if the viewer may add one to the task and the quota has room for it.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, key text, filename text, content_type text,
--   size bigint, sha256 text, quota bigint
-- nullable: id, task_id, key, filename, content_type, size, sha256, created_at
-- index: tasks_pkey, attachments_added_by_idx
-- raises: attachments_filename_check -> invalid, attachments_added_by_fkey -> unauthorized
-- notifies: task_events
-- why: the trigger that records the event reads the actor from the setting. Where there is a quota (0: none), it runs
--   behind attachments.lock_quota. The task's row is locked first, as the trigger changes it.
with actor as materialized (
    select set_config('service.actor_id', $2::bigint::text, true)
),

used as materialized (
    select coalesce(sum(a.size), 0)::bigint as bytes
    from attachments as a
    where a.added_by = $2
),

target as materialized (
    select
        t.id,
        used.bytes as used,
        case
            when not (t.user_id = $2 or $3) then 'forbidden'
            when $9::bigint > 0 and used.bytes + $7::bigint > $9 then 'full'
            else 'ok'
        end as verdict
    from actor
    cross join used
    cross join tasks as t
    where t.id = $1
    for no key update of t
),

added as (
    insert into attachments as a (task_id, added_by, key, filename, content_type, size, sha256)
    select
        target.id as task_id,
        $2 as added_by,
        $4 as given_key,
        $5 as filename,
        $6 as content_type,
        $7 as bytes,
        $8 as sha256
    from target
    where target.verdict = 'ok'
    returning a.*
)

select
    added.*,
    target.used,
    case when target.verdict = 'ok' and added.id is null then 'refused' else target.verdict end as verdict
from target
left join added on true;
