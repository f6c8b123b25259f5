-- transactional: false
--
-- Cities that a provider was once taken not to know are looked up again: the verdict may have come from a wrong URL.
--
-- In batches that each commit. The city of the weather is no change of a task, so that there is no event and no new
-- version. The file can be run again.
--
-- Locks: none that anyone waits for longer than a moment: rows of tasks.

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
        update tasks as t
        set weather_city = null
        where t.id > first and t.id <= last and t.weather is null and t.weather_city is not null;
        commit;
    end loop;
end
$$;
