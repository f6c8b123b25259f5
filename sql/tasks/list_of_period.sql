-- A page of the tasks of a period that the viewer may see, in another order than that of their creation.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- why: ids, changes and statuses go with time. The planner does not know that, and would walk the sort's index past
--   nearly every task outside of the period (an administrator's million: 250 ms). So the walk has a bound, within which
--   most pages are full. Where one is not, `sought` reads the period off its index and sorts it; `offset 0` keeps the
--   planner from walking there again. Both give the same rows, so the bound is about speed alone.
with walked as materialized (
    select t.id
    from (
        select
            t.id,
            t.updated_at,
            t.title,
            t.status,
            t.city,
            t.created_at
        from tasks as t
        where
            ($2 or t.user_id = $1)
            and ($3::bigint is null or t.user_id = $3)
            and /* after */ ($9::bigint is null or (t.updated_at, t.id) <= ($8::text::timestamptz, $9::bigint - 1))
        order by /* sort */ t.updated_at desc, t.id desc
        limit 3 * ($10::bigint + $11::bigint) + 5000
    ) as t
    where
        ($4::text[] is null or t.status = any($4))
        and ($5::text is null or t.city = $5)
        and ($6::timestamptz is null or t.created_at >= $6)
        and ($7::timestamptz is null or t.created_at < $7)
    order by /* sort */ t.updated_at desc, t.id desc
    limit $10 offset $11
),

sought as (
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
            and /* after */ ($9::bigint is null or (t.updated_at, t.id) <= ($8::text::timestamptz, $9::bigint - 1))
        offset 0 -- noqa: ambiguous.order_by_limit
    ) as t
    where (select count(*) from walked) < $10
    order by /* sort */ t.updated_at desc, t.id desc
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
order by /* sort */ t.updated_at desc, t.id desc;
