-- Return one attachment of a task with its storage key, and whether the viewer may see it.
-- returns: row?
-- params: task_id bigint, attachment_id bigint, viewer_id bigint, viewer_is_admin boolean
-- nullable: id, task_id, key, filename, content_type, size, sha256, created_at
-- index: tasks_pkey, attachments_task_idx
select
    a.*,
    case
        when not (t.user_id = $3 or $4) then 'forbidden'
        when a.id is null then 'absent'
        else 'ok'
    end as verdict
from tasks as t
left join attachments as a on t.id = a.task_id and a.id = $2
where t.id = $1;
