-- Write a city's weather into the tasks that miss it; null if the provider knows no such city.
-- returns: count
-- params: city text, weather jsonb?, row_limit bigint
-- index: tasks_city_idx, tasks_pkey
-- notifies: task_events
-- why: that there is no such city may be the provider's mistake, so the city is due again: after a day, then after as
--   long as the task has not changed, which are few look-ups in a year.
with missing as materialized (
    select t.id
    from tasks as t
    where
        t.city = $1
        and t.weather_city is distinct from t.city
        and ($2::jsonb is not null or t.weather_due_at < now() + interval '12 hours')
    order by t.id
    limit $3
    for update skip locked
)

update tasks as t
set
    weather = $2,
    weather_city = case when $2 is not null then t.city else t.weather_city end,
    weather_due_at
    = case when $2 is not null then t.weather_due_at else now() + greatest(interval '1 day', now() - t.updated_at) end
from missing
where t.id = missing.id;
