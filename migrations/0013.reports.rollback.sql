set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_completed_idx;
