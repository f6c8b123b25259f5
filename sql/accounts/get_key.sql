-- Return the active API key that has a hash, with its account's present role.
-- returns: row?
-- params: hash bytea
-- index: api_keys_hash_key, users_pkey
select
    k.id,
    k.read_only,
    k.expires_at,
    u.id as user_id,
    u.role
from api_keys as k
inner join users as u on k.user_id = u.id
where k.hash = $1 and (k.expires_at is null or k.expires_at > now()) and u.active;
