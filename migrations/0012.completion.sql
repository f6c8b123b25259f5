-- When a task was completed, for figures over that.
--
-- A trigger keeps it, whoever changes the status. It is no change of its own: neither version nor events know it.
--
-- Locks: `access exclusive` on tasks for a moment; the new column is null, so no row is rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table tasks add column completed_at timestamptz;

comment on column tasks.completed_at is
'When its status became done; null where it is not. Of tasks done before there was this column: their last change.';

-- The name puts this trigger before tasks_touch, so `updated_at` is still that of the change before.
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

create trigger tasks_complete
before insert or update on tasks
for each row execute function tasks_complete();

-- As before, but that a task was completed is told by its status.
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
