-- Where a reader stands that has seen everything there is now.
-- returns: row
select
    h.expired_id,
    task_event_epoch() as epoch,
    pg_current_snapshot()::text as snapshot_now,
    (select coalesce(max(e.id), 0) from task_events as e) as newest_id
from task_event_horizon as h;
