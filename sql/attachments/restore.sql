-- Restore the attachments deleted with a task whose files still exist.
-- returns: count
-- params: task_id bigint, keys text[]
-- index: removed_attachments_task_idx, users_pkey
-- notifies: task_events
-- why: runs in the transaction that restores the task. What stays behind does not come back another time. Whoever added
--   one may have no account any more.
with left_behind as (
    update removed_attachments as r
    set with_task = false
    where r.task_id = $1 and r.with_task and r.key <> all($2)
),

found as (
    delete from removed_attachments as r
    where r.key = any($2) and r.task_id = $1 and r.with_task and coalesce(r.claimed_until, '-infinity') <= now()
    returning r.attachment
)

insert into attachments (id, task_id, added_by, key, filename, content_type, size, sha256, created_at)
overriding system value
select
    o.id,
    o.task_id,
    u.id as added_by,
    o.key,
    o.filename,
    o.content_type,
    o.size,
    o.sha256,
    o.created_at
from found
cross join lateral jsonb_populate_record(null::attachments, found.attachment) as o
left join users as u on o.added_by = u.id;
