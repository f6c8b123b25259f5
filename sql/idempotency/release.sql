-- Delete a claim whose request failed, so that its key is free again.
-- returns: count
-- params: user_id bigint, route text, key text, holder bytea
-- index: idempotency_keys_pkey
-- why: an answer stays; whether the commit of one came through is not always known.
delete from idempotency_keys as i
where i.user_id = $1 and i.route = $2 and i.key = $3 and i.holder = $4 and i.status is null;
