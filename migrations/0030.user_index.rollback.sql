set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_user_idx;
create index concurrently tasks_user_idx on tasks (user_id, id, created_at, status, city);
drop index concurrently if exists tasks_user_status_idx;
create index concurrently tasks_user_status_idx on tasks (user_id, status, id, created_at, city);
drop index concurrently if exists tasks_user_title_idx;
create index concurrently tasks_user_title_idx on tasks (user_id, title, id, created_at, status, city);
drop index concurrently if exists tasks_user_updated_idx;
create index concurrently tasks_user_updated_idx on tasks (user_id, updated_at, id, created_at, status, city);

drop index concurrently if exists tasks_user_created_new_idx;
create index concurrently tasks_user_created_new_idx on tasks (user_id, created_at, id, status, city);
drop index concurrently if exists tasks_user_created_idx;
-- squawk-ignore renaming-object
alter index tasks_user_created_new_idx rename to tasks_user_created_idx;
