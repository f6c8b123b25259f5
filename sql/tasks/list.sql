-- List a page of the tasks that the viewer may see.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint
-- sort: created_at: t.created_at timestamptz, t.id bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- why: a cursor goes on behind its row, and says so by `<=` and the key before: for `<` the planner takes the first
--   column alone to be less, expects no row of a status that many share, and reads the wrong index.
--   "null or" filters with typed parameters are folded away by a custom plan, which PostgreSQL keeps choosing here.
select t.*
from task_view as t
where
    ($2 or t.user_id = $1)
    and ($3::bigint is null or t.user_id = $3)
    and ($4::text[] is null or t.status = any($4))
    and ($5::text is null or t.city = $5)
    and ($6::timestamptz is null or t.created_at >= $6)
    and ($7::timestamptz is null or t.created_at < $7)
    and /* after */ ($9::bigint is null or (t.created_at, t.id, 1) <= ($8::text::timestamptz, $9::bigint, 0))
order by /* sort */ t.created_at desc, t.id desc
limit $10 offset $11;
