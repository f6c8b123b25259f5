-- Show calls and times of every statement in this database, by tag; untagged ones are `other`.
-- returns: rows
-- extension: pg_stat_statements
-- why: one statement may have several entries: of several roles, or from before a change of the schema.
select
    coalesce(substring(s.query from '^\W*\w+ /\* (\w+\.\w+( -?\w+)?) \*/'), 'other') as name,
    sum(s.calls)::bigint as calls,
    sum(s.total_exec_time) as total_ms,
    sum(s.total_exec_time) / sum(s.calls) as mean_ms,
    sum(s.rows)::bigint as row_count,
    sum(s.shared_blks_hit)::bigint as blocks_hit,
    sum(s.shared_blks_read)::bigint as blocks_read,
    sum(s.temp_blks_written)::bigint as blocks_spilled
from pg_stat_statements as s
inner join pg_database as d on s.dbid = d.oid
where d.datname = current_database() and s.calls > 0
group by 1;
