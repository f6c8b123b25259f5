set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_words_idx;
create index concurrently tasks_words_idx on tasks using gin (words);
