-- List an account's sessions, the newest first.
-- returns: rows
-- params: user_id bigint, row_limit bigint
-- index: sessions_user_idx
select
    s.id,
    s.created_at,
    s.last_used_at,
    s.expires_at,
    s.client_address,
    s.user_agent
from sessions as s
where s.user_id = $1 and s.expires_at > now()
order by s.id desc
limit $2;
