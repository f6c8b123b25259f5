-- List a page of one user's tasks in another order than that of their creation.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- why: a user's tasks are few beside all, and tasks_user_created_idx holds what every order needs: they are sorted from
--   it, without a look at the table (100,000 tasks of one user: 30 ms; 5,000: 1.5). `offset 0` keeps the planner from
--   the indexes of all tasks, whose walk is long where the user has few.
with page as (
    select t.id
    from (
        select
            t.id,
            t.updated_at,
            t.title,
            t.status
        from tasks as t
        where
            ($2 or t.user_id = $1)
            and ($3::bigint is null or t.user_id = $3)
            and ($4::text[] is null or t.status = any($4))
            and ($5::text is null or t.city = $5)
            and ($6::timestamptz is null or t.created_at >= $6)
            and ($7::timestamptz is null or t.created_at < $7)
            and /* after */ ($9::bigint is null or (t.updated_at, t.id, 1) <= ($8::text::timestamptz, $9::bigint, 0))
        offset 0 -- noqa: ambiguous.order_by_limit
    ) as t
    order by /* sort */ t.updated_at desc, t.id desc
    limit $10 offset $11
)

select t.*
from page
inner join task_view as t on page.id = t.id
order by /* sort */ t.updated_at desc, t.id desc;
