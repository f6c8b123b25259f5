set local lock_timeout = '5s';
set local statement_timeout = '60s';
drop view task_view;
drop table tasks;
drop function tasks_touch();
