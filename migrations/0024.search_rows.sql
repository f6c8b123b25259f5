-- transactional: false
--
-- The words of tasks from before there was `task_search`, in batches that each commit, and the index that a search is read by.
--
-- A row that a trigger has written meanwhile is newer and stays. The lock keeps a task from being deleted before its row is
-- there; it is the foreign key's own. No task changes, so that there is no event. The file can be run again from any line.
--
-- Locks: `share update exclusive` on task_search while the index is made, and for moments rows; reads and writes go on.

set lock_timeout = '5s';
set statement_timeout = 0;
do $$
declare
    first bigint;
    last bigint := (select min(t.id) - 1 from tasks as t);
begin
    loop
        first := last;
        select max(b.id) into last
        from (select t.id from tasks as t where t.id > first order by t.id limit 5000) as b;
        exit when last is null;
        insert into task_search (task_id, words)
        select t.id, search_words(t.title, t.description)
        from (
            select t.id, t.title, t.description from tasks as t
            where t.id > first and t.id <= last
            for key share
        ) as t
        on conflict (task_id) do nothing;
        commit;
    end loop;
end
$$;

drop index concurrently if exists task_search_words_idx;
create index concurrently task_search_words_idx on task_search using gin (words);
analyze task_search;
