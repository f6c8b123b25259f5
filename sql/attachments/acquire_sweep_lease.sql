-- Acquire or extend the lease to compare files with rows, and return this database's folder.
-- returns: row?
-- params: seconds double precision, holds_lease boolean
update attachment_store as s
set sweep_due_at = now() + make_interval(secs => $1)
where $2 or s.sweep_due_at <= now()
returning s.folder;
