-- Count the tasks created and completed in each bucket of a period.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?, period_from timestamptz,
--   period_before timestamptz, starts timestamptz[]
-- nullable: hours_to_done_p50, hours_to_done_p90
-- why: a part is given by when it starts, as days begin in a time zone; the last one ends with the period.
with created as (
    select
        width_bucket(t.created_at, $6) as part,
        count(*) as number
    from tasks as t
    where
        ($2 or t.user_id = $1)
        and ($3::bigint is null or t.user_id = $3)
        and t.created_at >= $4
        and t.created_at < $5
    group by width_bucket(t.created_at, $6)
),

completed as (
    select
        width_bucket(t.completed_at, $6) as part,
        count(*) as number,
        percentile_cont(array[0.5, 0.9]) within group (
            order by extract(epoch from t.completed_at - t.created_at)::double precision / 3600
        ) as hours
    from tasks as t
    where
        ($2 or t.user_id = $1)
        and ($3::bigint is null or t.user_id = $3)
        and t.completed_at >= $4
        and t.completed_at < $5
    group by width_bucket(t.completed_at, $6)
)

select
    s.start,
    coalesce(created.number, 0) as created,
    coalesce(completed.number, 0) as completed,
    completed.hours[1] as hours_to_done_p50,
    completed.hours[2] as hours_to_done_p90
from unnest($6) with ordinality as s (start, part)
left join created on s.part = created.part
left join completed on s.part = completed.part
order by s.start asc;
