-- transactional: false
--
-- Between which ids and which last changes the tasks of a period lie: `tasks.period` asks, and lists walk past nothing else.
--
-- Both go with the time of creation, which neither the planner nor an index over them knows: a list of the later half of all
-- tasks by id walked past half a million entries (a million tasks: 35 ms; now 1). Each index keeps tasks in blocks, and in
-- each block by their creation, so that a skip scan asks one block after the other whether it has any of the period (62
-- blocks of ids at a million tasks: 0.2 ms). Blocks are large, so that they stay few; what lies in the first one before the
-- period is walked.
--
-- Locks: `share update exclusive` on tasks while indexes are made; reads and writes go on. `access exclusive` for the moment
-- in which an index is dropped or gets its name.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_block_idx;
create index concurrently tasks_block_idx on tasks ((id >> 14), created_at);
drop index concurrently if exists tasks_week_idx;
create index concurrently tasks_week_idx on tasks ((date_trunc('week', updated_at at time zone 'UTC')), created_at);

-- With the owner in it, figures of a period are read off this index alone.
drop index concurrently if exists tasks_created_new_idx;
create index concurrently tasks_created_new_idx on tasks (created_at, id, status, city) include (updated_at, user_id);
drop index concurrently if exists tasks_created_idx;
-- squawk-ignore renaming-object
alter index tasks_created_new_idx rename to tasks_created_idx;
