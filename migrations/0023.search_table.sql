-- The words of each task in a table of their own.
--
-- `tasks.words` is a stored generated column, and `tasks` has BEFORE UPDATE triggers: PostgreSQL computes it at every update,
-- and its index receives every lexeme again. To change the status of a task with 10,000 characters took 6.6 ms; without the
-- column 0.8. A row here changes only with title or description.
--
-- One pass in place of two: `task_words` kept each word as it is and as its stem, because the English stemmer drops words
-- such as "the". `english_all` is the same stemmer without stop words (30 us a text in place of 60). A query for a word finds
-- what has the word or another form of it. Only a word that happens to be spelled as the stem of another, and has itself
-- another stem, is no longer found by that other: "releas" by "releases".
--
-- Inserts have one trigger for each statement, so that a bulk insert calls it once. The rows of before come with 0024.
--
-- Locks: `share row exclusive` on tasks for the moment in which the triggers and the foreign key are made.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create text search dictionary english_all (template = pg_catalog.snowball, language = english);
create text search configuration english_all (copy = pg_catalog.english);
alter text search configuration english_all alter mapping replace pg_catalog.english_stem with english_all;

create function search_words(title text, description text) returns tsvector
stable
parallel safe
language sql
return to_tsvector('english_all'::regconfig, plain_words(title || E'\n' || coalesce(description, '')));

create table task_search (
    task_id bigint not null,
    words tsvector not null,
    constraint task_search_pkey primary key (task_id),
    constraint task_search_task_id_fkey foreign key (task_id) references tasks (id) on delete cascade
);

comment on table task_search is 'What a search reads: one row for each task, kept by triggers of tasks.';
comment on column task_search.words is 'Of title and description, as English stems; `words_sought` makes a query.';

create function tasks_add_words() returns trigger
language plpgsql as $$
begin
    insert into task_search (task_id, words)
    select n.id, search_words(n.title, n.description) from inserted as n;
    return null;
end
$$;

create function tasks_change_words() returns trigger
language plpgsql as $$
begin
    insert into task_search (task_id, words) values (new.id, search_words(new.title, new.description))
    on conflict (task_id) do update set words = excluded.words;
    return null;
end
$$;

do $$
declare
    name regprocedure;
begin
    foreach name in array array['tasks_add_words()', 'tasks_change_words()']::regprocedure[] loop
        execute format('alter function %s set search_path = %I, pg_temp', name, current_schema());
    end loop;
end
$$;

create trigger tasks_add_words
after insert on tasks
referencing new table as inserted
for each statement execute function tasks_add_words();

create trigger tasks_change_words
after update of title, description on tasks
for each row when (old.title <> new.title or old.description is distinct from new.description)
execute function tasks_change_words();
