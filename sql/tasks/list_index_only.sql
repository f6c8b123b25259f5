-- List a page of the tasks that the viewer may see, passing over many others in the index alone.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint, first_id bigint?, last_id bigint?, changed_from timestamptz?,
--   changed_before timestamptz?
-- sort: created_at: t.created_at timestamptz, t.id bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- why: what is in the way is read off the index alone; tasks.list looks up every skipped row in the table (10,000 of a
--   user's: 130 ms, here 9), but gives a near page sooner.
--   The last four parameters are of tasks.period_bounds: they exclude nothing more than the period does, and let the
--   walk begin at its edge.
with page as (
    select t.id
    from tasks as t
    where
        ($2 or t.user_id = $1)
        and ($3::bigint is null or t.user_id = $3)
        and ($4::text[] is null or t.status = any($4))
        and ($5::text is null or t.city = $5)
        and ($6::timestamptz is null or t.created_at >= $6)
        and ($7::timestamptz is null or t.created_at < $7)
        and ($12::bigint is null or t.id >= $12)
        and ($13::bigint is null or t.id <= $13)
        and ($14::timestamptz is null or t.updated_at >= $14)
        and ($15::timestamptz is null or t.updated_at < $15)
        and /* after */ ($9::bigint is null or (t.created_at, t.id, 1) <= ($8::text::timestamptz, $9::bigint, 0))
    order by /* sort */ t.created_at desc, t.id desc
    limit $10 offset $11
)

select t.*
from page
inner join task_view as t on page.id = t.id
order by /* sort */ t.created_at desc, t.id desc;
