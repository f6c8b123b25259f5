-- transactional: false
--
-- Lists of a period in another order than that of creation, and far pages by id, off the index alone, without a look at
-- the table (a million tasks, an administrator's first page of half a year by last changes: 47 ms without, 20 with; of the
-- later half by id: 115 without, 50 with). Both indexes grow at their end, so inserts do not notice.
--
-- Title stays out: an index as large as tasks_user_created_idx makes the planner skip through that one, user by user.
-- Each index is made under another name, then takes the old one's place; the file can be run again from any line.
--
-- Locks: `share update exclusive` on tasks while indexes are made; reads and writes go on. `access exclusive` on tasks
-- for the moment in which the primary key changes its index.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_created_new_idx;
create index concurrently tasks_created_new_idx on tasks (created_at, id, status, city) include (updated_at);
drop index concurrently if exists tasks_created_idx;
-- squawk-ignore renaming-object
alter index tasks_created_new_idx rename to tasks_created_idx;

drop index concurrently if exists tasks_id_idx;
create unique index concurrently tasks_id_idx on tasks (id) include (created_at, status, city);
alter table tasks
-- squawk-ignore ban-drop-constraint
drop constraint tasks_pkey,
add constraint tasks_pkey primary key using index tasks_id_idx;
