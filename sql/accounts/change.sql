-- Another role of an account, or whether it is active; the sessions of one that is not end.
-- returns: row?
-- params: user_id bigint, role text?, active boolean?
-- index: users_pkey
-- raises: users_role_check -> invalid, users_last_admin -> conflict
with ended as (
    delete from sessions as s
    where s.user_id = $1 and not $3
)

update account_view as a
set
    role = coalesce($2, a.role),
    active = coalesce($3, a.active)
where a.id = $1
returning a.*;
