-- Lock the restoration of a task until the transaction ends.
-- returns: value
-- params: task_id bigint
-- why: a statement of its own, so that what restores the task then sees what the one before has done. There is no row
--   to lock, and nobody else makes a task with an id that was taken.
select pg_advisory_xact_lock(hashtextextended('tasks.restore', $1))::text as turn;
