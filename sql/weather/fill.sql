-- Write a city's weather into the tasks that miss it; null if there is no such city.
-- returns: count
-- params: city text, weather jsonb?, row_limit bigint
-- index: tasks_city_idx, tasks_pkey
-- notifies: task_events
with missing as materialized (
    select t.id
    from tasks as t
    where t.city = $1 and t.weather_city is distinct from t.city
    order by t.id
    limit $3
    for update skip locked
)

update tasks as t
set
    weather = $2,
    weather_city = t.city
from missing
where t.id = missing.id;
