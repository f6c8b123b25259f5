-- Return the successor of a refresh token that was used a moment ago, the same as then.
-- returns: row?
-- params: refresh_token bytea, seconds double precision
-- index: sessions_previous_idx, users_pkey
select
    s.id,
    u.id as user_id,
    u.role,
    sha256(s.secret || $1) as successor
from sessions as s
inner join users as u on s.user_id = u.id
where
    s.previous_hash = sha256($1)
    and s.last_used_at > now() - make_interval(secs => $2)
    and s.expires_at > now()
    and u.active;
