-- Delete one session of an account.
-- returns: count
-- params: session_id bigint, user_id bigint
-- index: sessions_user_idx
delete from sessions as s
where s.id = $1 and s.user_id = $2;
