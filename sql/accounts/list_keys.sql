-- List an account's API keys, the newest first, without their hashes.
-- returns: rows
-- params: user_id bigint, row_limit bigint
-- index: api_keys_user_idx
select
    k.id,
    k.name,
    k.read_only,
    k.created_at,
    k.expires_at,
    k.last_used_at
from api_key_view as k
where k.user_id = $1
order by k.id desc
limit $2;
