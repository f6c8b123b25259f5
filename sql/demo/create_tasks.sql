-- Create tasks with a past, as `demo` invents them.
-- returns: count
-- params: user_ids bigint[], titles text[], descriptions text?[], statuses text[], cities text?[],
--   created_at timestamptz[], updated_at timestamptz[]
-- notifies: task_events
insert into tasks (user_id, title, description, status, city, created_at, updated_at)
select
    n.user_id,
    n.title,
    n.description,
    n.status,
    n.city,
    n.created_at,
    n.updated_at
from
    unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[])
    with ordinality as n (user_id, title, description, status, city, created_at, updated_at, place)
order by n.place;
