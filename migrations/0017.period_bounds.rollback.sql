set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_week_idx;
drop index concurrently if exists tasks_block_idx;
