-- One trigger for what becomes of a task's row before it is written, in place of three.
--
-- Locks: `share row exclusive` and `access exclusive` on tasks for a moment; no row is read.

set local lock_timeout = '5s';
set local statement_timeout = '60s';
-- squawk-ignore-file ban-drop-function

create function tasks_prepare() returns trigger
language plpgsql as $$
declare
    before tasks;
begin
    -- Weather goes with its city, whoever writes: what was not looked up for the present city goes, unless only its spelling
    -- changed.
    if tg_op = 'INSERT' then
        if new.weather is not null then
            new.weather_city := new.city;
        end if;
    elsif new.weather_city is not distinct from old.weather_city then
        if new.weather is distinct from old.weather then
            new.weather_city := case when new.weather is not null then new.city end;
        elsif
            old.weather_city = old.city
            and lower(btrim(new.city) collate "pg_c_utf8") = lower(btrim(old.city) collate "pg_c_utf8")
        then
            new.weather_city := new.city;
        elsif new.city is distinct from old.city then
            new.weather := null;
            new.weather_city := null;
        end if;
        if new.city is distinct from old.city then
            new.weather_due_at := '-infinity';
        end if;
    end if;

    -- The completion follows the status.
    if new.status <> 'done' then
        new.completed_at := null;
    elsif tg_op = 'INSERT' then
        new.completed_at := coalesce(new.completed_at, greatest(new.updated_at, new.created_at));
    elsif old.status <> 'done' then
        new.completed_at := greatest(now(), new.created_at);
    else
        new.completed_at := coalesce(new.completed_at, old.completed_at, old.updated_at);
    end if;

    -- A change moves version and updated_at on; a change that changes nothing moves neither. When the weather is due, of which
    -- city it is, and when the task was completed are no changes of their own.
    if tg_op = 'UPDATE' then
        before := old;
        before.weather_city := new.weather_city;
        before.weather_due_at := new.weather_due_at;
        before.completed_at := new.completed_at;
        new.version := old.version;
        new.updated_at := old.updated_at;
        if new is distinct from before then
            new.version := old.version + 1;
            new.updated_at := greatest(now(), old.updated_at);
        end if;
    end if;

    return new;
end
$$;

do $$
begin
    execute format('alter function tasks_prepare() set search_path = %I, pg_temp', current_schema());
end
$$;

drop trigger tasks_keep_weather on tasks;
drop trigger tasks_complete on tasks;
drop trigger tasks_touch on tasks;
drop function tasks_keep_weather();
drop function tasks_complete();
drop function tasks_touch();

create trigger tasks_prepare
before insert or update on tasks
for each row execute function tasks_prepare();

comment on column tasks.version is 'Moved on by tasks_prepare with every change; the entity tag of HTTP.';
