set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_id_idx;
create unique index concurrently tasks_id_idx on tasks (id);
alter table tasks
-- squawk-ignore ban-drop-constraint
drop constraint tasks_pkey,
add constraint tasks_pkey primary key using index tasks_id_idx;

drop index concurrently if exists tasks_created_new_idx;
create index concurrently tasks_created_new_idx on tasks (created_at, id, status, city);
drop index concurrently if exists tasks_created_idx;
-- squawk-ignore renaming-object
alter index tasks_created_new_idx rename to tasks_created_idx;
