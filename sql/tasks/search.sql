-- A page of the tasks that the viewer may see and that have the words which are sought.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint, sought text
-- sort: created_at: t.created_at timestamptz, t.id bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- why: the words are not in the view; the planner takes the join of the table with itself away again.
--   It also chooses between the index of words and a walk along the sort's, by how many tasks it takes to have a word.
--   It is wrong where a common one is far away in that order, and takes a phrase of common words for common.
select t.*
from task_view as t
inner join tasks as w on t.id = w.id
where
    ($2 or t.user_id = $1)
    and ($3::bigint is null or t.user_id = $3)
    and ($4::text[] is null or t.status = any($4))
    and ($5::text is null or t.city = $5)
    and ($6::timestamptz is null or t.created_at >= $6)
    and ($7::timestamptz is null or t.created_at < $7)
    and w.words @@ words_sought($12)
    and /* after */ ($9::bigint is null or (t.created_at, t.id) <= ($8::text::timestamptz, $9::bigint - 1))
order by /* sort */ t.created_at desc, t.id desc
limit $10 offset $11;
