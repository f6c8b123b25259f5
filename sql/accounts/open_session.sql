-- A log-in's session; the account's oldest ones beyond the most that it may have end.
-- returns: value
-- params: user_id bigint, refresh_hash bytea, secret bytea, days integer, client_address text?, user_agent text?,
--   most bigint
-- index: sessions_user_idx, sessions_pkey
-- raises: sessions_user_id_fkey -> unauthorized
with surplus as materialized (
    select s.id
    from sessions as s
    where s.user_id = $1
    order by s.id desc
    offset $7::bigint - 1
),

ended as (
    delete from sessions as s
    using surplus
    where s.id = surplus.id
)

insert into sessions (user_id, refresh_hash, secret, expires_at, client_address, user_agent)
values ($1, $2, $3, now() + make_interval(days => $4), $5, $6)
returning id;
