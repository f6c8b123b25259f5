-- Create a task.
-- returns: row
-- params: user_id bigint, title text, description text?, status text, city text?, weather jsonb?
-- raises: tasks_user_id_fkey -> unauthorized, tasks_title_check -> invalid, tasks_description_check -> invalid,
--   tasks_status_check -> invalid, tasks_city_check -> invalid
-- notifies: task_events
-- why: the trigger that records the event reads the actor from the setting.
with actor as materialized (
    select set_config('service.actor_id', $1::bigint::text, true)
)

insert into task_view as t (user_id, title, description, status, city, weather)
select
    $1 as user_id,
    $2 as title,
    $3 as description,
    $4 as status,
    $5 as city,
    $6 as weather
from actor
returning t.*;
