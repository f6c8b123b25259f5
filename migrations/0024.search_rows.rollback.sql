set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists task_search_words_idx;
