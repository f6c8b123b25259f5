-- Return the fraction of all tasks that a period has, from 0 to 1, by the statistics; null without any.
-- returns: value
-- params: created_from timestamptz?, created_before timestamptz?
-- nullable: part
-- why: between two bounds of the histogram lie equally many tasks.
select
    avg(
        case
            when b.bound >= coalesce($1::timestamptz, '-infinity') and b.bound < coalesce($2::timestamptz, 'infinity')
                then 1.0
            else 0.0
        end
    )::float8 as part
from pg_stats as s
cross join lateral unnest(s.histogram_bounds::text::timestamptz[]) as b (bound)
where s.schemaname = current_schema() and s.tablename = 'tasks' and s.attname = 'created_at';
