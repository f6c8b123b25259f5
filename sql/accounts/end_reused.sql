-- The end of a session whose spent refresh token was used again: one of the two who have it is a thief.
-- returns: count
-- params: session_id bigint
-- index: sessions_pkey
delete from sessions as s
where s.id = $1;
