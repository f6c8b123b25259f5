-- A new task.
-- returns: row
-- params: user_id bigint, title text, description text?, status text, city text?, weather jsonb?
-- raises: tasks_user_id_fkey -> unauthorized, tasks_title_check -> invalid, tasks_description_check -> invalid,
--   tasks_status_check -> invalid, tasks_city_check -> invalid
insert into task_view as t (user_id, title, description, status, city, weather)
values ($1, $2, $3, $4, $5, $6)
returning t.*;
