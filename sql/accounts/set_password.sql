-- Set a new password if nobody has changed it since; the account's other sessions end.
-- returns: count
-- params: user_id bigint, password_hash text, verified_hash text, kept_session_id bigint?
-- index: users_pkey
-- why: the trigger users_end_sessions ends them, but for the one that the setting names.
with kept as materialized (
    select set_config('service.kept_session_id', coalesce($4::bigint::text, ''), true)
)

update users as u
set password_hash = $2
from kept
where u.id = $1 and u.password_hash = $3;
