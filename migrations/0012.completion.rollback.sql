set local lock_timeout = '5s';
set local statement_timeout = '60s';

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

drop trigger tasks_complete on tasks;
drop function tasks_complete();
alter table tasks drop column completed_at;
