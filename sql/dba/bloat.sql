-- List each table's dead rows, its last vacuum, and its distance to transaction id wrap-around.
-- returns: rows
-- nullable: dead_percent, last_vacuum_at, last_analyze_at
select
    s.relname::text as of_table,
    s.n_live_tup as live_rows,
    s.n_dead_tup as dead_rows,
    s.n_mod_since_analyze as changed_since_analyze,
    (100.0 * s.n_dead_tup / nullif(s.n_live_tup + s.n_dead_tup, 0))::double precision as dead_percent,
    greatest(s.last_vacuum, s.last_autovacuum) as last_vacuum_at,
    greatest(s.last_analyze, s.last_autoanalyze) as last_analyze_at,
    age(c.relfrozenxid)::bigint as transactions_since_freeze,
    pg_size_pretty(pg_total_relation_size(s.relid)) as size
from pg_stat_user_tables as s
inner join pg_class as c on s.relid = c.oid
order by s.n_dead_tup desc, s.relname asc;
