-- Create an API key, stored as its hash, if the account has fewer than the maximum.
-- returns: row?
-- params: user_id bigint, name text, hash bytea, read_only boolean, expires_at timestamptz?, max_keys bigint
-- index: api_keys_user_idx
-- raises: api_keys_user_id_fkey -> unauthorized, api_keys_name_check -> invalid, api_keys_expires_at_check -> invalid
with owned as (
    select count(*) as number
    from api_keys as k
    where k.user_id = $1
)

insert into api_keys as k (user_id, name, hash, read_only, expires_at)
select
    $1 as user_id,
    $2 as key_name,
    $3 as key_hash,
    $4 as read_only,
    $5 as expires_at
from owned
where owned.number < $6
returning
    k.id,
    k.name,
    k.read_only,
    k.created_at,
    k.expires_at,
    k.last_used_at;
