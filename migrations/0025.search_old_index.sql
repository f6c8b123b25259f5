-- transactional: false
--
-- The index of `tasks.words` goes; 0026 says what becomes of the column.
--
-- Locks: `share update exclusive` on tasks; reads and writes go on. `access exclusive` for the moment in which it goes.

set lock_timeout = '5s';
set statement_timeout = 0;
drop index concurrently if exists tasks_words_idx;
