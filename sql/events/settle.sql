-- Events that a restore brought with transactions of this cluster's future: made to be long past.
-- returns: count
-- index: task_events_xid_idx
-- why: they would be new to every reader once this cluster's transactions had come so far. The restore has changed the
--   epoch, so nobody's position goes by their old ones.
update task_events as e
set xid = '3'
where e.xid >= pg_snapshot_xmax(pg_current_snapshot());
