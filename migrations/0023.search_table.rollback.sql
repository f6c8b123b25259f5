set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop trigger tasks_change_words on tasks;
drop trigger tasks_add_words on tasks;
drop function tasks_change_words();
drop function tasks_add_words();
drop table task_search;
drop function search_words(text, text);
drop text search configuration english_all;
drop text search dictionary english_all;
