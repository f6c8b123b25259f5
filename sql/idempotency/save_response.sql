-- Save the response of a claimed request, in the transaction of its changes.
-- returns: count
-- params: user_id bigint, route text, key text, holder bytea, status bigint, headers json, body bytea
-- index: idempotency_keys_pkey
-- why: 0 where another has taken the claim over: then this transaction must not be committed.
update idempotency_keys as i
set
    status = $5,
    headers = $6,
    body = $7
where i.user_id = $1 and i.route = $2 and i.key = $3 and i.holder = $4 and i.status is null;
