-- Tasks, and the trigger that moves their version on.
--
-- Locks: `share row exclusive` on users for the moment in which the foreign key is made.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table tasks (
    id bigint generated always as identity,
    user_id bigint not null,
    title text collate "C" not null,
    description text,
    status text collate "C" not null default 'todo',
    city text collate "C",
    weather jsonb,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version bigint not null default 1,
    constraint tasks_pkey primary key (id),
    -- No cascade: an account with tasks is deactivated, and a DBA who deletes one says first what becomes of them.
    constraint tasks_user_id_fkey foreign key (user_id) references users (id),
    constraint tasks_title_check check (char_length(title) <= 100 and title ~ '\S'),
    constraint tasks_description_check check (char_length(description) <= 10000),
    -- Text with a check and not an enum: a value can be taken away again, and every driver knows text.
    constraint tasks_status_check check (status in ('todo', 'in_progress', 'done')),
    constraint tasks_city_check check (char_length(city) <= 100),
    constraint tasks_weather_check check (jsonb_typeof(weather) = 'object'),
    -- PostgreSQL knows infinity and years that clients cannot read.
    constraint tasks_created_at_check check (created_at >= '0001-01-02' and created_at < '9999-12-30'),
    constraint tasks_updated_at_check check (updated_at >= '0001-01-02' and updated_at < '9999-12-30')
);

comment on table tasks is 'Tasks.';
comment on column tasks.title is 'Sorted by code point (collation C), so that every deployment agrees.';
comment on column tasks.weather is 'Set by the service alone: at least temperature (°C) and condition, or null.';
comment on column tasks.version is 'Moved on by tasks_touch with every change; the entity tag of HTTP.';

-- A change, whoever makes it, moves version and updated_at on; a change that changes nothing moves neither.
create function tasks_touch() returns trigger
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

create trigger tasks_touch
before update on tasks
for each row execute function tasks_touch();

-- The one shape in which a task leaves the database.
create view task_view as
select
    t.id,
    t.title,
    t.description,
    t.status,
    t.city,
    t.weather,
    t.user_id,
    t.created_at,
    t.updated_at,
    t.version
from tasks as t;

-- One index for each sort of a list, once for an administrator's (all tasks; by id it is the primary key) and once for a
-- user's (own tasks). Their order (equality, sort, primary key) lets a page be read off the index, forwards or backwards,
-- from a cursor on. Behind that the columns of the filters: a filter that leaves little is then checked in the index, and
-- not by a look at every row that it does not leave (a million tasks, worst list: 3.1 s without, 0.3 s with).
create index tasks_created_idx on tasks (created_at, id, status, city);
create index tasks_updated_idx on tasks (updated_at, id, created_at, status, city);
create index tasks_title_idx on tasks (title, id, created_at, status, city);
create index tasks_status_idx on tasks (status, id, created_at, city);
create index tasks_user_created_idx on tasks (user_id, created_at, id, status, city);
create index tasks_user_updated_idx on tasks (user_id, updated_at, id, created_at, status, city);
create index tasks_user_title_idx on tasks (user_id, title, id, created_at, status, city);
create index tasks_user_status_idx on tasks (user_id, status, id, created_at, city);
create index tasks_user_idx on tasks (user_id, id, created_at, status, city);
-- A city that few tasks share is found by its name, and no sort is walked to its end for one that none has: for that the
-- planner must know more than the hundred most common ones.
create index tasks_city_idx on tasks (city, created_at, id) where city is not null;
alter table tasks alter column city set statistics 1000;
