-- Change the role of an account, or whether it is active; the sessions of an inactive account end.
-- returns: row?
-- params: user_id bigint, role text?, active boolean?
-- index: users_pkey
-- raises: users_role_check -> invalid, users_last_admin -> conflict
-- why: the trigger users_end_sessions ends them.
update account_view as a
set
    role = coalesce($2, a.role),
    active = coalesce($3, a.active)
where a.id = $1
returning a.*;
