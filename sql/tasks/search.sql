-- List a page of the tasks that the viewer may see and that contain the searched words.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, status text[]?, city text?,
--   created_from timestamptz?, created_before timestamptz?, after_value text?, after_id bigint?,
--   row_limit bigint, row_offset bigint, sought text, within_period boolean, walk_limit bigint
-- sort: created_at: t.created_at timestamptz, t.id bigint
-- sort: updated_at: t.updated_at timestamptz, t.id bigint
-- sort: title: t.title text, t.id bigint
-- sort: status: t.status text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
-- scans: task_search, tasks
-- planned: each time
-- why: `task_search` has owner, creation and title, so that the planner removes the join where no status, city or
--   last change is asked for (a word of a sixth of a million tasks by title: 500 ms CPU with it, 126 without). `offset
--   0` keeps the planner from walking along the order, which tasks.search_walk has done. Where that walk has passed all
--   tasks of a user or period, as `stretch` tells, nothing is left to find: so it is for most users.
with page as (
    select t.id
    from (
        select
            w.task_id as id,
            w.title,
            t.status,
            w.created_at,
            t.updated_at
        from task_search as w
        left join tasks as t on w.task_id = t.id
        where
            ($2 or w.user_id = $1)
            and ($3::bigint is null or w.user_id = $3)
            and ($4::text[] is null or t.status = any($4))
            and ($5::text is null or t.city = $5)
            and ($6::timestamptz is null or w.created_at >= $6)
            and ($7::timestamptz is null or w.created_at < $7)
            and w.words @@ words_sought($12)
        offset 0 -- noqa: ambiguous.order_by_limit
    ) as t
    where
        (
            ($2 and $3::bigint is null and not ($13 and coalesce($6::timestamptz, $7::timestamptz) is not null))
            or (
                select count(*)
                from (
                    select o.id
                    from tasks as o
                    where
                        ($2 or o.user_id = $1)
                        and ($3::bigint is null or o.user_id = $3)
                        and (not $13 or $6::timestamptz is null or o.created_at >= $6)
                        and (not $13 or $7::timestamptz is null or o.created_at < $7)
                    order by o.created_at asc
                    limit $14
                ) as stretch
            ) = $14
        )
        and /* after */ ($9::bigint is null or (t.created_at, t.id, 1) <= ($8::text::timestamptz, $9::bigint, 0))
    order by /* sort */ t.created_at desc, t.id desc
    limit $10 offset $11
)

select t.*
from page
inner join task_view as t on page.id = t.id
order by /* sort */ t.created_at desc, t.id desc;
