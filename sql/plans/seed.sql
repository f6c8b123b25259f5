-- 1,000 users and :rows tasks, skewed as real ones are: a tenth of the users owns most tasks, statuses, cities and days
-- are uneven, titles repeat. Deterministic, so that two runs measure the same.
select setseed(0.42);

insert into users (username, password_hash, role)
select
    'load-' || n as username,
    '!' as password_hash,
    case when n = 1 then 'admin' else 'user' end as role
from generate_series(1, 1000) as n;

-- In the order of their creation, as ids are; most are changed for the last time soon after.
insert into tasks (user_id, title, description, status, city, created_at, updated_at)
select
    (select min(u.id) from users as u where u.username like 'load-%') + floor(1000 * power(random(), 3))::bigint,
    (array['Prepare', 'Review', 'Send', 'Plan', 'Book', 'Fix'])[1 + floor(6 * random())::int]
    || ' ' || md5((n % 200000)::text),
    case
        when random() < 0.7
            then repeat('lorem ipsum ', 1 + (n % 20)) || 'topic' || floor(2000 * power((n::bigint * 7919 % 100003) / 100003.0, 3))::text
    end,
    case
        when random() < 0.9 * n / :rows::float then 'todo'
        when random() < 0.95 then 'done'
        else 'in_progress'
    end,
    case when random() < 0.6 then 'City ' || floor(500 * power(random(), 4))::text end,
    d.created_at,
    least(d.created_at + interval '1 day' * (-5 * ln(1 - random())), timestamptz '2026-11-02Z')
from generate_series(1, :rows) as n
cross join lateral (
    select timestamptz '2024-11-01Z' + interval '1 day' * 730 * sqrt(n / :rows::float) as created_at
) as d
order by n;

-- Events of many transactions, and what accounts have.
update task_events
set
    xid = (3 + id * 600 / :rows)::text::xid8,
    previous_user_id = case when id % 100 = 0 then user_id + 1 end;

insert into users (username, password_hash)
select
    'Member' || n as username,
    '!' as password_hash
from generate_series(1, 30000) as n;

insert into sessions (user_id, expires_at, secret, refresh_hash, previous_hash)
select
    u.ids[1 + n % 1000] as user_id,
    now() + (n - 300) * interval '1 minute' as expires_at,
    sha256(n::text::bytea) as secret,
    sha256(sha256(n::text::bytea)) as refresh_hash,
    case when n % 2 = 0 then sha256(('before ' || n)::bytea) end as previous_hash
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;

insert into api_keys (user_id, name, hash, expires_at)
select
    u.ids[1 + n % 1000] as user_id,
    'key' as name,
    sha256(n::text::bytea) as hash,
    case when n % 3 = 0 then now() + n * interval '1 minute' end as expires_at
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;

insert into tickets (hash, user_id, expires_at, access_expires_at)
select
    sha256(n::text::bytea) as hash,
    u.ids[1 + n % 1000] as user_id,
    now() - n * interval '1 second' as expires_at,
    now() as access_expires_at
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;

insert into idempotency_keys (user_id, route, key, fingerprint, holder, claimed_at, claimed_until)
select
    u.ids[1 + n % 1000] as user_id,
    'POST /tasks' as route,
    n::text as key,
    '' as fingerprint,
    '' as holder,
    now() - n * interval '10 seconds' as claimed_at,
    now() as claimed_until
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;

insert into attachments (task_id, added_by, key, filename, content_type, size, sha256, created_at)
select
    t.id as task_id,
    t.user_id as added_by,
    repeat('a', 32) || '/' || md5(t.id::text) as key,
    'a.txt' as filename,
    'text/plain' as content_type,
    1 as size,
    repeat('c', 64) as sha256,
    now() - interval '2 hours' as created_at
from tasks as t
where t.id <= 30000;

insert into removed_attachments (key, task_id, attachment, with_task, claimed_until)
select
    repeat('b', 32) || '/' || md5(n::text) as key,
    n as task_id,
    '{}' as attachment,
    n % 2 = 0 as with_task,
    now() + (n - 300) * interval '1 minute' as claimed_until
from generate_series(1, 30000) as n;

vacuum analyze;
