-- Delete the oldest events beyond the retention period, and return how many.
-- returns: value
-- params: days integer, row_limit bigint
-- index: task_events_pkey
-- why: one replica at a time, the others skip the horizon's row. Ids rise with time, so that the oldest are the first.
--   The scan starts at the horizon: before it lie the index entries of deleted events, which stay as long as any
--   snapshot is held (47 ms a batch; from the horizon 5).
with turn as materialized (
    select h.expired_id
    from task_event_horizon as h
    for update skip locked
),

oldest as materialized (
    select
        e.id,
        e.at
    from turn
    inner join task_events as e on turn.expired_id < e.id
    order by e.id
    limit $2
),

gone as (
    delete from task_events as e
    using oldest
    where e.id = oldest.id and oldest.at < now() - make_interval(days => $1)
    returning e.id
),

moved as (
    update task_event_horizon as h
    set expired_id = greatest(h.expired_id, (select max(gone.id) from gone))
    where exists (select gone.id from gone)
)

select count(*) as expired
from gone;
