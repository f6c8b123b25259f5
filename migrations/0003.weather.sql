-- Which city a task's weather belongs to, so that weather which is missing is found in the table and not in memory.
--
-- Locks: `access exclusive` on tasks for a moment; the new columns have constant defaults, so no row is rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table tasks
add column weather_city text collate "C",
add column weather_due_at timestamptz not null default '-infinity';

comment on column tasks.weather_city is
'The city that `weather` was looked up for; weather is missing where it is not the task''s city.';
comment on column tasks.weather_due_at is 'Where weather is missing: when it is looked up next.';

-- Weather goes with its city, whoever writes: what was not looked up for the present city goes, unless only its spelling
-- changed. The name puts this trigger before tasks_touch, which then sees what changed in the end.
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

create trigger tasks_keep_weather
before insert or update on tasks
for each row execute function tasks_keep_weather();

-- As before, but where weather was looked up and when it is due is no change of the task.
create or replace function tasks_touch() returns trigger
language plpgsql as $$
declare
    before tasks := old;
begin
    before.weather_city := new.weather_city;
    before.weather_due_at := new.weather_due_at;
    new.version := old.version;
    new.updated_at := old.updated_at;
    if new is distinct from before then
        new.version := old.version + 1;
        new.updated_at := greatest(now(), old.updated_at);
    end if;
    return new;
end
$$;
