set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_created_new_idx;
create index concurrently tasks_created_new_idx on tasks (created_at, id, status, city) include (updated_at, user_id);
drop index concurrently if exists tasks_created_idx;
-- squawk-ignore renaming-object
alter index tasks_created_new_idx rename to tasks_created_idx;

drop index concurrently if exists tasks_block_new_idx;
create index concurrently tasks_block_new_idx on tasks ((id >> 14), created_at);
drop index concurrently if exists tasks_block_idx;
-- squawk-ignore renaming-object
alter index tasks_block_new_idx rename to tasks_block_idx;
