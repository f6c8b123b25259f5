-- Claim files of deleted attachments, for as long as their removal may take.
-- returns: rows
-- params: seconds double precision, row_limit bigint
-- index: removed_attachments_due_idx, removed_attachments_pkey
-- why: several replicas take turns here; what one has claimed is skipped by the others, and due again later where the
--   store was away or the replica died.
with due as materialized (
    select r.key
    from removed_attachments as r
    where coalesce(r.claimed_until, '-infinity') <= now()
    order by coalesce(r.claimed_until, '-infinity')
    limit $2
    for update skip locked
)

update removed_attachments as r
set claimed_until = now() + make_interval(secs => $1)
from due
where r.key = due.key
returning r.key;
