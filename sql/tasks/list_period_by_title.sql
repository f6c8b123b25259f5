-- List a page of a period's tasks that the viewer may see, in the order of their titles.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint
-- sort: title: t.title text, t.id bigint
-- why: the planner takes statuses and cities to be as frequent in every period, and would walk the titles past nearly
--   every task where they are not (a million tasks, what is still to do of the first month: 77 ms). So the walk has a
--   bound, within which most pages are full. Where one is not, `sought` reads the period off its index and sorts it;
--   `offset 0` keeps the planner from walking there again. Both give the same rows, so the bound is about speed alone.
with walked as materialized (
    select t.id
    from (
        select
            t.id,
            t.title,
            t.status,
            t.city,
            t.created_at
        from tasks as t
        where
            ($2 or t.user_id = $1)
            and ($3::bigint is null or t.user_id = $3)
            and /* after */ ($9::bigint is null or (t.title, t.id, 1) <= ($8::text::text, $9::bigint, 0))
        order by /* sort */ t.title desc, t.id desc
        limit 3 * ($10::bigint + $11::bigint) + 5000
    ) as t
    where
        ($4::text[] is null or t.status = any($4))
        and ($5::text is null or t.city = $5)
        and ($6::timestamptz is null or t.created_at >= $6)
        and ($7::timestamptz is null or t.created_at < $7)
    order by /* sort */ t.title desc, t.id desc
    limit $10 offset $11
),

sought as (
    select t.id
    from (
        select
            t.id,
            t.title
        from tasks as t
        where
            ($2 or t.user_id = $1)
            and ($3::bigint is null or t.user_id = $3)
            and ($4::text[] is null or t.status = any($4))
            and ($5::text is null or t.city = $5)
            and ($6::timestamptz is null or t.created_at >= $6)
            and ($7::timestamptz is null or t.created_at < $7)
            and /* after */ ($9::bigint is null or (t.title, t.id, 1) <= ($8::text::text, $9::bigint, 0))
        offset 0 -- noqa: ambiguous.order_by_limit
    ) as t
    where (select count(*) from walked) < $10
    order by /* sort */ t.title desc, t.id desc
    limit $10 offset $11
),

page as (
    select walked.id
    from walked
    union
    select sought.id
    from sought
)

select t.*
from page
inner join task_view as t on page.id = t.id
order by /* sort */ t.title desc, t.id desc;
