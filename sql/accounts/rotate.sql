-- Use a refresh token: the session continues with its successor.
-- returns: row?
-- params: refresh_token bytea, days integer
-- index: sessions_refresh_key, users_pkey
-- why: of many uses at once one finds its hash; the others find it in previous_hash (accounts.recent_successor).
update sessions as s
set
    previous_hash = s.refresh_hash,
    refresh_hash = sha256(sha256(s.secret || $1)),
    last_used_at = now(),
    expires_at = now() + make_interval(days => $2)
from users as u
where s.refresh_hash = sha256($1) and s.expires_at > now() and s.user_id = u.id and u.active
returning
    s.id,
    u.id as user_id,
    u.role,
    sha256(s.secret || $1) as successor;
