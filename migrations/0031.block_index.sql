-- transactional: false
--
-- The counts of a period are read off the index of blocks, which is narrow, in place of the wide one by creation.
--
-- Everyone's month has 80,000 entries of a million, and what is read for each of them counts. A narrow index that begins with
-- the creation would also be taken for lists, which then have to sort. This one begins with the block, and a skip scan asks one
-- block after the other. It is there anyway, for `tasks.period_bounds`.
--
-- Locks: `share update exclusive` on tasks while indexes are made; reads and writes go on. `access exclusive` for the moment
-- in which an index is dropped or gets its name.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_block_new_idx;
create index concurrently tasks_block_new_idx on tasks ((id >> 14), created_at) include (user_id, status);
drop index concurrently if exists tasks_block_idx;
-- squawk-ignore renaming-object
alter index tasks_block_new_idx rename to tasks_block_idx;

drop index concurrently if exists tasks_created_new_idx;
create index concurrently tasks_created_new_idx on tasks (created_at, id, status, city) include (updated_at);
drop index concurrently if exists tasks_created_idx;
-- squawk-ignore renaming-object
alter index tasks_created_new_idx rename to tasks_created_idx;
