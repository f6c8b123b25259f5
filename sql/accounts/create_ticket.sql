-- Create a ticket, stored as its hash, and delete some expired ones.
-- returns: row
-- params: hash bytea, user_id bigint, access_expires_at timestamptz?, session_id bigint?, key_id bigint?
-- index: tickets_expires_idx, tickets_pkey
-- raises: tickets_user_id_fkey -> unauthorized
with gone as (
    delete from tickets as k
    using (
        select s.hash
        from tickets as s
        where s.expires_at < now()
        order by s.expires_at
        limit 100
        for update skip locked
    ) as expired
    where k.hash = expired.hash
)

insert into tickets (hash, user_id, access_expires_at, session_id, key_id)
values ($1, $2, $3, $4, $5)
returning expires_at;
