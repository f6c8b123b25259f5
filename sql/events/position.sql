-- Where a reader stands that has seen everything there is now.
-- returns: row
select
    h.expired_id,
    task_event_epoch() as epoch,
    pg_current_snapshot()::text as snapshot_now,
    greatest(h.expired_id, (select max(e.id) from task_events as e)) as newest_id
from task_event_horizon as h;
