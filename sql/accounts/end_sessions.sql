-- The end of all sessions of an account, but for one.
-- returns: count
-- params: user_id bigint, kept_id bigint?
-- index: sessions_user_idx
delete from sessions as s
where s.user_id = $1 and s.id is distinct from $2;
