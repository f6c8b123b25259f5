-- Events without a check of their type.
--
-- `tasks_record_event` alone writes the type, and it writes no other. The check cost every write, as PostgreSQL reads its
-- expression from its text each time: an insert of a task with its event took 392 us of CPU time over eight connections, 338 without
-- (a million tasks, best third of 11 interleaved blocks of 500, on a loaded machine).
--
-- Locks: `access exclusive` on task_events for a moment.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table task_events
-- squawk-ignore ban-drop-constraint
drop constraint task_events_type_check;

comment on column task_events.type is '`task.created`, `task.updated`, `task.deleted` or `task.restored`.';
