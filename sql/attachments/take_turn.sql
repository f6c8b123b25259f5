-- The turn to hold files against rows, or more time for who has it; the folder that this database's files are in.
-- returns: row?
-- params: seconds double precision, has_turn boolean
update attachment_store as s
set sweep_due_at = now() + make_interval(secs => $1)
where $2 or s.sweep_due_at <= now()
returning s.folder;
