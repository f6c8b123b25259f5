-- List indexes not read since the statistics were reset, the largest first, without those that enforce rules.
-- returns: rows
-- nullable: statistics_since
-- why: on every server that reads: a standby counts for itself.
select
    s.relname::text as of_table,
    s.indexrelname::text as index_name,
    s.idx_scan as scans,
    s.last_idx_scan as last_used_at,
    d.stats_reset as statistics_since,
    pg_relation_size(s.indexrelid) as bytes,
    pg_size_pretty(pg_relation_size(s.indexrelid)) as size
from pg_stat_user_indexes as s
inner join pg_index as x on s.indexrelid = x.indexrelid
cross join pg_stat_database as d
where d.datname = current_database() and s.idx_scan = 0 and not x.indisunique
order by pg_relation_size(s.indexrelid) desc, s.indexrelname;
