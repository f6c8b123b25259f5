set local lock_timeout = '5s';
set local statement_timeout = '60s';
alter table tasks drop column words;

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

drop function words_sought(text);
drop function task_words(text, text);
drop function plain_words(text);
