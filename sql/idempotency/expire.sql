-- Delete responses and claims that are 24 hours old.
-- returns: count
-- params: row_limit bigint
-- index: idempotency_keys_claimed_idx, idempotency_keys_pkey
with expired as materialized (
    select
        i.user_id,
        i.route,
        i.key
    from idempotency_keys as i
    where i.claimed_at <= now() - interval '24 hours'
    order by i.claimed_at
    limit $1
    for update skip locked
)

delete from idempotency_keys as i
using expired
where i.user_id = expired.user_id and i.route = expired.route and i.key = expired.key;
