-- List a page of the tasks that contain the searched words, as far as a bounded walk along the order finds them.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint, sought text, first_id bigint?, last_id bigint?,
--   changed_from timestamptz?, changed_before timestamptz?, within_period boolean, walk_limit bigint
-- sort: created_at: t.created_at timestamptz, t.id bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- planned: each time
-- why: a common word is met soon in most orders, where tasks.search would read and sort all tasks that have it. The
--   walk has a bound, because the planner knows no phrase, and nothing of words that go with a time or begin titles (a
--   million tasks: up to 4.6 s). If the page is short, tasks.search returns the whole page. The walk stays within the
--   period, where the order goes with time: between the bounds of tasks.period_bounds. Titles do not.
with page as (
    select t.id
    from (
        select
            t.id,
            t.title,
            t.status,
            t.city,
            t.created_at,
            t.updated_at
        from tasks as t
        where
            ($2 or t.user_id = $1)
            and ($3::bigint is null or t.user_id = $3)
            and ($13::bigint is null or t.id >= $13)
            and ($14::bigint is null or t.id <= $14)
            and ($15::timestamptz is null or t.updated_at >= $15)
            and ($16::timestamptz is null or t.updated_at < $16)
            and (not $17 or $6::timestamptz is null or t.created_at >= $6)
            and (not $17 or $7::timestamptz is null or t.created_at < $7)
            and /* after */ ($9::bigint is null or (t.created_at, t.id, 1) <= ($8::text::timestamptz, $9::bigint, 0))
        order by /* sort */ t.created_at desc, t.id desc
        limit $18
    ) as t
    inner join task_search as w on t.id = w.task_id
    where
        ($4::text[] is null or t.status = any($4))
        and ($5::text is null or t.city = $5)
        and ($17 or $6::timestamptz is null or t.created_at >= $6)
        and ($17 or $7::timestamptz is null or t.created_at < $7)
        and w.words @@ words_sought($12)
    order by /* sort */ t.created_at desc, t.id desc
    limit $10 offset $11
)

select t.*
from page
inner join task_view as t on page.id = t.id
order by /* sort */ t.created_at desc, t.id desc;
