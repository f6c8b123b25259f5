-- Show standbys and their lag, slots and what they retain, and how full the notification queue is.
-- returns: rows
-- nullable: state, bytes_behind, seconds_behind, percent_full
-- why: on a standby what is behind is counted from what it has received itself. A listener that never reads holds the
--   queue; at 100 % every commit with a notification fails.
with here as materialized (
    select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end as lsn
)

select
    'standby' as kind,
    r.application_name as name,
    r.state,
    pg_wal_lsn_diff(here.lsn, r.replay_lsn)::bigint as bytes_behind,
    extract(epoch from r.replay_lag)::double precision as seconds_behind,
    null::double precision as percent_full
from here
cross join pg_stat_replication as r
union all
select
    'slot' as kind,
    s.slot_name::text as name,
    case when s.active then 'active' else 'inactive' end as state,
    pg_wal_lsn_diff(here.lsn, s.restart_lsn)::bigint as bytes_behind,
    null as seconds_behind,
    null as percent_full
from here
cross join pg_replication_slots as s
union all
select
    'notifications' as kind,
    'queue' as name,
    null as state,
    null as bytes_behind,
    null as seconds_behind,
    100 * pg_notification_queue_usage() as percent_full
order by kind, name;
