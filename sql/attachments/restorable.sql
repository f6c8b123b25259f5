-- List the attachments deleted with a task whose files nobody removes now, and whether anybody has tried.
-- returns: rows
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, row_limit bigint
-- index: removed_attachments_task_idx, task_events_task_idx
select
    r.key,
    r.claimed_until is not null as is_doubtful
from removed_attachments as r
where
    r.task_id = $1
    and r.with_task
    and coalesce(r.claimed_until, '-infinity') <= now()
    and (
        $3
        or $2 = (
            select e.user_id
            from task_events as e
            where e.task_id = $1
            order by e.id desc
            limit 1
        )
    )
order by r.key
limit $4;
