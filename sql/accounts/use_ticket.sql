-- Delete a ticket and return whom it was for, if it was valid.
-- returns: row?
-- params: hash bytea
-- index: tickets_pkey, users_pkey
with used as (
    delete from tickets as k
    where k.hash = $1
    returning
        k.user_id,
        k.expires_at,
        k.access_expires_at,
        k.session_id,
        k.key_id
)

select
    u.id,
    u.role,
    used.access_expires_at,
    used.session_id,
    used.key_id
from used
inner join users as u on used.user_id = u.id
where used.expires_at > now() and u.active;
