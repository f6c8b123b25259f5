-- Return one task, and whether the viewer may see it.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean
-- index: tasks_pkey
select
    t.*,
    case when t.user_id = $2 or $3 then 'ok' else 'forbidden' end as verdict
from task_view as t
where t.id = $1;
