-- List the running statements, the longest first, by tag, and whom each waits for.
-- returns: rows
-- nullable: application, user_name, client, wait, tag, running_seconds, transaction_seconds
select
    a.pid,
    a.usename::text as user_name,
    a.application_name as application,
    a.client_addr::text as client,
    a.state,
    a.wait_event_type || ': ' || a.wait_event as wait,
    extract(epoch from clock_timestamp() - a.query_start)::double precision as running_seconds,
    extract(epoch from clock_timestamp() - a.xact_start)::double precision as transaction_seconds,
    pg_blocking_pids(a.pid) as blocked_by,
    substring(a.query from '/\* (\w+\.\w+( -?\w+)?) \*/') as tag,
    left(a.query, 200) as query
from pg_stat_activity as a
where
    a.datname = current_database()
    and a.backend_type = 'client backend'
    and a.state <> 'idle'
    and a.pid <> pg_backend_pid()
order by a.query_start, a.pid;
