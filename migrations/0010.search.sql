-- The words of a task's title and description, for full text search.
--
-- Each word is there twice: as it is, and as its English stem. A stored column and not an index over an expression: where a
-- filter leaves few tasks, or a phrase is sought, their words are looked at again, and would be taken apart again.
--
-- Locks: `access exclusive` on tasks while each row is written anew: a minute for a million tasks, in which nobody reads or
-- writes them. A column that a trigger fills would not wait, but be wrong where a trigger is off.

set local lock_timeout = '5s';
set local statement_timeout = '1h';

-- One form for what is kept and what is sought, whatever the database's locale: case and width of letters do not count,
-- and an accent is the same before and in its letter.
create function plain_words(value text) returns text
immutable
parallel safe
language sql
return lower(normalize(value, nfkc) collate "pg_c_utf8");

-- The blank is taken out again; it puts a distance between the last stem and the first word, which are no phrase.
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

-- Words that are in nearly every English text ("the") have no stem to be found by. Where there are others beside them they
-- do not matter, and where there are none they are sought as they are: "the who".
--
-- Hyphens in a row, or with no word behind, negate nothing (--help): thirty of them, a ruled line, are an error to PostgreSQL
-- ("tsquery stack too small"), as is what becomes too long by its plain form.
create function words_sought(value text) returns tsquery
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
            p.words,
            websearch_to_tsquery('pg_catalog.english', p.words) as stems
        from regexp_replace(left(plain_words(value), 10000) collate "pg_c_utf8", '-{2,}|-(?![[:alnum:]"])', ' ', 'g') as p (words)
    ) as s
);

-- As before, but a generated column is no change of its own: it is empty in here, as it is computed afterwards.
create or replace function tasks_touch() returns trigger
language plpgsql as $$
declare
    before tasks := old;
begin
    before.weather_city := new.weather_city;
    before.weather_due_at := new.weather_due_at;
    before.words := new.words;
    new.version := old.version;
    new.updated_at := old.updated_at;
    if new is distinct from before then
        new.version := old.version + 1;
        new.updated_at := greatest(now(), old.updated_at);
    end if;
    return new;
end
$$;

alter table tasks
-- squawk-ignore adding-field-with-default
add column words tsvector generated always as (task_words(title, description)) stored;

comment on column tasks.words is 'Of title and description, as they are and as English stems; `words_sought` makes a query.';
