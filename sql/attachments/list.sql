-- List a page of a task's attachments, in the order in which they were added, and whether the viewer may see them.
-- returns: rows
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, after_id bigint?, row_limit bigint
-- nullable: id, task_id, filename, content_type, size, sha256, created_at
-- index: tasks_pkey, attachments_task_idx
-- why: where there is a task there is a row, so that the verdict comes along, without an id where there is nothing.
select
    a.*,
    a.id is not null as is_attachment,
    case when t.user_id = $2 or $3 then 'ok' else 'forbidden' end as verdict
from tasks as t
left join lateral (
    select v.*
    from attachment_view as v
    where
        v.task_id = t.id
        and (t.user_id = $2 or $3)
        and ($4::bigint is null or v.id > $4)
    order by v.id
    limit $5
) as a on true
where t.id = $1
order by a.id;
