-- A function takes the place of `tasks.words`.
--
-- PostgreSQL reads `t.words`, where the table has no such column, as the function `words(t)`. The statements of the release
-- before therefore run unchanged while it is replaced, and find the same tasks, without an index: their searches take longer
-- for that time. A column that stays filled would keep the cost that 0023 removes. The next release may drop the function.
--
-- Words such as "the" are sought as stems, too, where a query has no others: that is how they are kept now.
--
-- Locks: `access exclusive` on tasks for a moment; no row is rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function tasks_touch() returns trigger
language plpgsql as $$
declare
    before tasks := old;
begin
    before.weather_city := new.weather_city;
    before.weather_due_at := new.weather_due_at;
    before.completed_at := new.completed_at;
    new.version := old.version;
    new.updated_at := old.updated_at;
    if new is distinct from before then
        new.version := old.version + 1;
        new.updated_at := greatest(now(), old.updated_at);
    end if;
    return new;
end
$$;

do $$
begin
    execute format('alter function tasks_touch() set search_path = %I, pg_temp', current_schema());
end
$$;

-- squawk-ignore ban-drop-column
alter table tasks drop column words;
-- squawk-ignore ban-drop-function
drop function task_words(text, text);

create function words(t tasks) returns tsvector
stable
parallel safe
language sql
return (select s.words from task_search as s where s.task_id = t.id);

create or replace function words_sought(value text) returns tsquery
immutable
parallel safe
language sql
return (
    select
        case
            when numnode(s.stems) > 0 then s.stems
            else websearch_to_tsquery('english_all'::regconfig, s.words)
        end
    from (
        select
            w.words,
            websearch_to_tsquery('pg_catalog.english', w.words) as stems
        from regexp_replace(
            replace(value, chr(1), ' ') collate "pg_c_utf8", '(^|\s)-[^[:alnum:]\s"-]*(?=[[:alnum:]"])', '\1' || chr(1), 'g'
        ) as n (words)
        cross join lateral plain_words(n.words) as p (words)
        cross join lateral regexp_substr(
            left(p.words, 10000), '^(?:[^[:alnum:]]*[[:alnum:]]+){0,32}[^[:alnum:]\s,]*(?![^\s,])'
        ) as c (words)
        cross join lateral replace(coalesce(c.words, ''), chr(1), '-') as w (words)
    ) as s
);
