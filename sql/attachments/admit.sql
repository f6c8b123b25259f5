-- Whether the viewer may add an attachment to a task, where its file goes, and what the viewer's attachments come to.
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
