-- List each wait for a lock: who waits, for what, and who blocks it.
-- returns: rows
-- nullable: relation, waiting_tag, blocking_tag, blocking_state, waiting_query, blocking_query, waiting_seconds,
--   blocking_transaction_seconds, blocking_user, waiting_user
select
    w.pid as waiting_pid,
    w.usename::text as waiting_user,
    l.mode as lock_mode,
    l.locktype as lock_type,
    b.pid as blocking_pid,
    b.usename::text as blocking_user,
    b.state as blocking_state,
    substring(w.query from '/\* (\w+\.\w+( -?\w+)?) \*/') as waiting_tag,
    extract(epoch from clock_timestamp() - w.query_start)::double precision as waiting_seconds,
    case when l.database = d.oid then l.relation::regclass::text end as relation,
    substring(b.query from '/\* (\w+\.\w+( -?\w+)?) \*/') as blocking_tag,
    extract(epoch from clock_timestamp() - b.xact_start)::double precision as blocking_transaction_seconds,
    left(w.query, 200) as waiting_query,
    left(b.query, 200) as blocking_query
from pg_stat_activity as w
inner join pg_database as d on w.datid = d.oid
inner join pg_locks as l on w.pid = l.pid and not l.granted
cross join unnest(pg_blocking_pids(w.pid)) as by_pid (pid)
inner join pg_stat_activity as b on by_pid.pid = b.pid
where d.datname = current_database()
order by w.query_start, w.pid, b.pid;
