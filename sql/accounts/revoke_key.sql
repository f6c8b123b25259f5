-- Delete one API key of an account.
-- returns: count
-- params: key_id bigint, user_id bigint
-- index: api_keys_user_idx
delete from api_keys as k
where k.id = $1 and k.user_id = $2;
