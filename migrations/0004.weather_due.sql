-- transactional: false
--
-- What weather is missing, by when it is due: few rows, however large the table.
--
-- Locks: `share update exclusive` on tasks; reads and writes go on.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_weather_due_idx;
create index concurrently tasks_weather_due_idx on tasks (weather_due_at)
where city is not null and weather_city is distinct from city;
