-- Delete a session whose used refresh token was sent again: one of its two holders is a thief.
-- returns: count
-- params: session_id bigint
-- index: sessions_pkey
delete from sessions as s
where s.id = $1;
