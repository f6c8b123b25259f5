-- Return whether the viewer may add an attachment to a task, its folder, and how much of the quota is used.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean
-- index: tasks_pkey, attachments_added_by_idx
select
    s.folder,
    case when t.user_id = $2 or $3 then 'ok' else 'forbidden' end as verdict,
    (
        select coalesce(sum(a.size), 0)::bigint
        from attachments as a
        where a.added_by = $2
    ) as used
from tasks as t
cross join attachment_store as s
where t.id = $1;
