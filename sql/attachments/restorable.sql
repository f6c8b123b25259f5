-- Attachments that went with a task, as far as nobody removes their files now, and whether anybody has tried.
-- returns: rows
-- params: task_id bigint, row_limit bigint
-- index: removed_attachments_task_idx
select
    r.key,
    r.claimed_until is not null as is_doubtful
from removed_attachments as r
where r.task_id = $1 and r.with_task and coalesce(r.claimed_until, '-infinity') <= now()
order by r.key
limit $2;
