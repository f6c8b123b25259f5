-- Return the position of a reader that has seen every event up to now.
-- returns: row
-- index: task_events_pkey
-- why: the newest event is known by id and time: a database that was put back to an earlier state gives ids out again.
select
    h.expired_id,
    task_event_epoch() as epoch,
    pg_current_snapshot()::text as snapshot_now,
    greatest(h.expired_id, newest.id) as newest_id,
    coalesce(extract(epoch from newest.at) * 1000000, 0)::bigint as newest_at
from task_event_horizon as h
left join lateral (
    select
        e.id,
        e.at
    from task_events as e
    order by e.id desc
    limit 1
) as newest on true;
