set local lock_timeout = '5s';
set local statement_timeout = '1h';

create or replace function words_sought(value text) returns tsquery
immutable
parallel safe
language sql
return (
    select
        case
            when numnode(s.stems) > 0 then s.stems
            else websearch_to_tsquery('pg_catalog.simple', s.words)
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

drop function words(tasks);

create function task_words(title text, description text) returns tsvector
immutable
parallel safe
language sql
return (
    select ts_delete(
        to_tsvector('pg_catalog.english', p.words) || tsvector ''' '':100' || to_tsvector('pg_catalog.simple', p.words),
        ' '
    )
    from plain_words(title || E'\n' || coalesce(description, '')) as p (words)
);

alter table tasks
-- squawk-ignore adding-field-with-default
add column words tsvector generated always as (task_words(title, description)) stored;

comment on column tasks.words is 'Of title and description, as they are and as English stems; `words_sought` makes a query.';

create or replace function tasks_touch() returns trigger
language plpgsql as $$
declare
    before tasks := old;
begin
    before.weather_city := new.weather_city;
    before.weather_due_at := new.weather_due_at;
    before.words := new.words;
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
