-- Note that an API key is used, at most once an hour.
-- returns: count
-- params: key_id bigint
-- index: api_keys_pkey
-- why: the trigger api_keys_announce does not fire for this column, so that no process forgets the account.
update api_keys as k
set last_used_at = now()
where k.id = $1 and (k.last_used_at is null or k.last_used_at < now() - interval '1 hour');
