set local lock_timeout = '5s';
set local statement_timeout = '1h';

drop trigger tasks_prepare on tasks;
drop function tasks_prepare();

create function tasks_keep_weather() returns trigger
language plpgsql as $$
begin
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
    return new;
end
$$;

create function tasks_complete() returns trigger
language plpgsql as $$
begin
    if new.status <> 'done' then
        new.completed_at := null;
    elsif tg_op = 'INSERT' then
        new.completed_at := coalesce(new.completed_at, greatest(new.updated_at, new.created_at));
    elsif old.status <> 'done' then
        new.completed_at := greatest(now(), new.created_at);
    else
        new.completed_at := coalesce(new.completed_at, old.completed_at, old.updated_at);
    end if;
    return new;
end
$$;

create function tasks_touch() returns trigger
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
declare
    name regprocedure;
begin
    foreach name in array array['tasks_keep_weather()', 'tasks_complete()', 'tasks_touch()']::regprocedure[] loop
        execute format('alter function %s set search_path = %I, pg_temp', name, current_schema());
    end loop;
end
$$;

create trigger tasks_keep_weather
before insert or update on tasks
for each row execute function tasks_keep_weather();

create trigger tasks_complete
before insert or update on tasks
for each row execute function tasks_complete();

create trigger tasks_touch
before update on tasks
for each row execute function tasks_touch();

comment on column tasks.version is 'Moved on by tasks_touch with every change; the entity tag of HTTP.';
