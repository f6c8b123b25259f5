-- Count the tasks that match the filters of tasks.list.
-- returns: value
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?
-- scans: tasks
select count(*) as total
from tasks as t
where
    ($2 or t.user_id = $1)
    and ($3::bigint is null or t.user_id = $3)
    and ($4::text[] is null or t.status = any($4))
    and ($5::text is null or t.city = $5)
    and ($6::timestamptz is null or t.created_at >= $6)
    and ($7::timestamptz is null or t.created_at < $7);
