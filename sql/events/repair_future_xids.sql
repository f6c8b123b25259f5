-- Give events that a restore brought with future transaction ids an old one, the nearest first.
-- returns: count
-- params: row_limit bigint
-- index: task_events_xid_idx, task_events_pkey
-- why: they would be new to every reader once this cluster's transactions had come so far. A restore changes the epoch,
--   or takes away the event that a position knows, so nobody's position goes by their old ones.
--   It may bring them in a transaction of their own, at any time: events.has_future_xids is asked before every look.
with future as materialized (
    select e.id
    from task_events as e
    where e.xid >= pg_snapshot_xmax(pg_current_snapshot())
    order by e.xid asc, e.id asc
    limit $1
)

update task_events as e
set xid = '3'
from future
where e.id = future.id and e.xid <> '3';
