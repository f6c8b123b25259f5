-- Claim the right to run a request, or return its saved response.
-- returns: row?
-- params: user_id bigint, route text, key text, fingerprint bytea, holder bytea, seconds double precision
-- index: idempotency_keys_pkey
-- raises: idempotency_keys_user_id_fkey -> unauthorized, idempotency_keys_key_check -> invalid
-- why: an answer may have some 16 MB, and is read for who gets it alone.
--   A key is free again where its 24 hours are over, or where whoever claimed it for the same body has died. The
--   conflict locks the row, so that of many one claims it. No row: another has claimed it since this statement began.
with claimed as (
    insert into idempotency_keys as i (user_id, route, key, fingerprint, holder, claimed_until)
    select
        $1 as user_id,
        $2 as route,
        $3 as given_key,
        $4 as fingerprint,
        $5 as holder,
        now() + make_interval(secs => $6) as claimed_until
    on conflict (user_id, route, key) do update
        set
            fingerprint = excluded.fingerprint,
            holder = excluded.holder,
            claimed_at = excluded.claimed_at,
            claimed_until = excluded.claimed_until,
            status = null,
            headers = null,
            body = null
        where
        i.claimed_at <= now() - interval '24 hours'
        or (i.status is null and i.claimed_until <= now() and i.fingerprint = excluded.fingerprint)
    returning
        'claimed' as verdict,
        i.status,
        i.headers,
        i.body
)

select claimed.*
from claimed
union all
select
    case
        when i.fingerprint <> $4 then 'other'
        when i.status is null then 'running'
        else 'answered'
    end as verdict,
    i.status,
    i.headers,
    case when i.fingerprint = $4 then i.body end as body
from idempotency_keys as i
where
    i.user_id = $1
    and i.route = $2
    and i.key = $3
    and not exists (select from claimed);
