set lock_timeout = '5s';
set statement_timeout = 0;
-- The functions are as 0023 writes them.
do $$
declare
    name regprocedure;
begin
create or replace function tasks_change_words() returns trigger
language plpgsql as $body$
begin
    insert into task_search (task_id, words) values (new.id, search_words(new.title, new.description))
    on conflict (task_id) do update set words = excluded.words;
    return null;
end
$body$;

create or replace function tasks_add_words() returns trigger
language plpgsql as $body$
begin
    insert into task_search (task_id, words)
    select n.id, search_words(n.title, n.description) from inserted as n;
    return null;
end
$body$;

    foreach name in array array['tasks_add_words()', 'tasks_change_words()']::regprocedure[] loop
        execute format('alter function %s set search_path = %I, pg_temp', name, current_schema());
    end loop;

    create or replace trigger tasks_change_words
    after update of title, description on tasks
    for each row when (old.title <> new.title or old.description is distinct from new.description)
    execute function tasks_change_words();

    alter table task_search
    drop column if exists title,
    drop column if exists created_at,
    drop column if exists user_id;
end
$$;
