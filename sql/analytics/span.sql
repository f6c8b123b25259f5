-- Return when the first task that the viewer may see was created, and the present time.
-- returns: row
-- params: viewer_id bigint, viewer_is_admin boolean, user_id bigint?
-- nullable: first_created_at
select
    min(t.created_at) as first_created_at,
    now() as present
from tasks as t
where
    ($2 or t.user_id = $1)
    and ($3::bigint is null or t.user_id = $3);
