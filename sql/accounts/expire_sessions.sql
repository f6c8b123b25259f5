-- Delete sessions whose refresh token has expired.
-- returns: count
-- params: row_limit bigint
-- index: sessions_expires_idx, sessions_pkey
with expired as materialized (
    select s.id
    from sessions as s
    where s.expires_at <= now()
    order by s.expires_at
    limit $1
    for update skip locked
)

delete from sessions as s
using expired
where s.id = expired.id;
