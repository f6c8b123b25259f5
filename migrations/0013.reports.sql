-- transactional: false
--
-- What was done before there was `completed_at`, in batches that each commit, so that nobody waits long for a row; and what
-- was completed in a period, off an index alone. None of the same kind by created_at: the planner prefers it for lists, too,
-- and then has to sort.
--
-- Locks: `share update exclusive` on tasks while indexes are made, and for moments rows; reads and writes go on.

set lock_timeout = '5s';
set statement_timeout = 0;
do $$
declare
    first bigint := 0;
    last bigint := (select max(t.id) from tasks as t);
begin
    while first <= last loop
        update tasks as t set completed_at = t.updated_at
        where t.id > first and t.id <= first + 5000 and t.status = 'done' and t.completed_at is null;
        commit;
        first := first + 5000;
    end loop;
end
$$;

drop index concurrently if exists tasks_completed_idx;
create index concurrently tasks_completed_idx on tasks (completed_at) include (user_id, created_at)
where completed_at is not null;
