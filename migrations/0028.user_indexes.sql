-- transactional: false
--
-- One index for all of a user's lists but that by title, in place of four.
--
-- A user's tasks are few beside all tasks: the index of their creation holds what every other order needs, and the page is
-- sorted from it without a look at the table. The three indexes that go took a third of an insert's work in indexes.
--
-- Locks: `share update exclusive` on tasks while the index is made; reads and writes go on. `access exclusive` for the moment
-- in which an index is dropped or gets its name.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_user_created_new_idx;
create index concurrently tasks_user_created_new_idx on tasks (user_id, created_at, id, status, city) include (updated_at);
drop index concurrently if exists tasks_user_created_idx;
-- squawk-ignore renaming-object
alter index tasks_user_created_new_idx rename to tasks_user_created_idx;

drop index concurrently if exists tasks_user_updated_idx;
drop index concurrently if exists tasks_user_status_idx;
drop index concurrently if exists tasks_user_idx;
