-- Return whether a restore brought events with transaction ids that this cluster has not reached.
-- returns: value
-- index: task_events_xid_idx
-- why: asked before every look, which an update may not be: a database may be read-only, a table locked. After a large
--   settlement it passes what is dead in the index until task_events is vacuumed.
select count(*) > 0 as is_unsettled
from (
    select e.id
    from task_events as e
    where e.xid >= pg_snapshot_xmax(pg_current_snapshot())
    order by e.xid asc
    limit 1
) as e;
