set local lock_timeout = '5s';
set local statement_timeout = '1h';

delete from task_search as s where not exists (select t.id from tasks as t where t.id = s.task_id);

alter table task_search
-- squawk-ignore constraint-missing-not-valid, adding-foreign-key-constraint
add constraint task_search_task_id_fkey foreign key (task_id) references tasks (id) on delete cascade;

drop trigger tasks_remove_words on tasks;
drop function tasks_remove_words();
