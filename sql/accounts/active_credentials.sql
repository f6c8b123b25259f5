-- Return which sessions and API keys are active, with their accounts' present roles.
-- returns: rows
-- params: session_ids bigint[], key_ids bigint[]
-- index: sessions_pkey, api_keys_pkey, users_pkey
select
    'session' as kind,
    s.id,
    u.id as user_id,
    u.role,
    false as read_only
from sessions as s
inner join users as u on s.user_id = u.id
where s.id = any($1) and s.expires_at > now() and u.active
union all
select
    'key' as kind,
    k.id,
    u.id as user_id,
    u.role,
    k.read_only
from api_keys as k
inner join users as u on k.user_id = u.id
where k.id = any($2) and (k.expires_at is null or k.expires_at > now()) and u.active;
