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

vacuum analyze users;
vacuum analyze tasks;
