-- Create tasks, in the order in which they are sent.
-- returns: rows
-- params: user_id bigint, titles text[], descriptions text?[], statuses text[], cities text?[], weathers jsonb?[]
-- raises: tasks_user_id_fkey -> unauthorized, tasks_title_check -> invalid, tasks_description_check -> invalid,
--   tasks_status_check -> invalid, tasks_city_check -> invalid
-- notifies: task_events
-- why: the trigger that records the events reads the actor from the setting.
--   Rows are sorted before they are given their ids, so that ids rise in the order in which the tasks are given.
with actor as materialized (
    select set_config('service.actor_id', $1::bigint::text, true)
),

made as (
    insert into task_view as t (user_id, title, description, status, city, weather)
    select
        $1 as user_id,
        n.title,
        n.description,
        n.status,
        n.city,
        n.weather
    from actor
    cross join
        unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[])
        with ordinality as n (title, description, status, city, weather, place)
    order by n.place
    returning t.*
)

select made.*
from made
order by made.id;
