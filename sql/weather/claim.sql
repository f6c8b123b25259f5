-- Claim cities whose weather is missing and due, for as long as their look-up may take.
-- returns: rows
-- params: seconds double precision, row_limit bigint
-- index: tasks_weather_due_idx, tasks_pkey
-- why: several replicas take turns here; a task that one has claimed is skipped by the others, and due again later
--   where the look-up failed or its replica died.
with due as materialized (
    select t.id
    from tasks as t
    where
        t.city is not null
        and t.weather_city is distinct from t.city
        and t.weather_due_at <= now()
    order by t.weather_due_at
    limit $2
    for update skip locked
)

update tasks as t
set weather_due_at = now() + make_interval(secs => $1)
from due
where t.id = due.id
returning t.city;
