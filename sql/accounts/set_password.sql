-- A new password, where nobody has changed it meanwhile; the account's other sessions end.
-- returns: value
-- params: user_id bigint, password_hash text, known_hash text, kept_session_id bigint?
-- index: users_pkey, sessions_user_idx
with changed as (
    update users as u
    set password_hash = $2
    where u.id = $1 and u.password_hash = $3
    returning u.id
),

ended as (
    delete from sessions as s
    using changed
    where s.user_id = changed.id and s.id is distinct from $4
)

select count(*) as changes
from changed;
