set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function tasks_touch() returns trigger
language plpgsql as $$
begin
    new.version := old.version;
    new.updated_at := old.updated_at;
    if new is distinct from old then
        new.version := old.version + 1;
        new.updated_at := greatest(now(), old.updated_at);
    end if;
    return new;
end
$$;

drop trigger tasks_keep_weather on tasks;
drop function tasks_keep_weather();
alter table tasks
drop column weather_city,
drop column weather_due_at;
