-- Count the tasks that match the filters of tasks.list and tasks.search.
-- returns: value
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, sought text?
-- scans: tasks
select count(*) as total
from tasks as t
left join task_search as w on t.id = w.task_id
where
    ($2 or t.user_id = $1)
    and ($3::bigint is null or t.user_id = $3)
    and ($4::text[] is null or t.status = any($4))
    and ($5::text is null or t.city = $5)
    and ($6::timestamptz is null or t.created_at >= $6)
    and ($7::timestamptz is null or t.created_at < $7)
    and ($8::text is null or w.words @@ words_sought($8));
