-- Create a session if the verified password is still the account's; end the oldest beyond the maximum.
-- returns: row?
-- params: user_id bigint, verified_hash text, refresh_hash bytea, secret bytea, days integer, client_address text?,
--   user_agent text?, max_sessions bigint
-- index: users_pkey, sessions_user_idx, sessions_pkey
-- raises: sessions_user_id_fkey -> unauthorized
-- why: the account is held, so that a change of its password comes before, and there is no session, or after, and ends
--   it.
with account as materialized (
    select u.id
    from users as u
    where u.id = $1 and u.password_hash = $2 and u.active
    for share
),

surplus as materialized (
    select s.id
    from sessions as s
    inner join account on s.user_id = account.id
    order by s.id desc
    offset $8::bigint - 1
),

ended as (
    delete from sessions as s
    using surplus
    where s.id = surplus.id
)

insert into sessions (user_id, refresh_hash, secret, expires_at, client_address, user_agent)
select
    account.id as user_id,
    $3 as refresh_hash,
    $4 as secret,
    now() + make_interval(days => $5) as expires_at,
    $6 as client_address,
    $7 as user_agent
from account
returning id;
