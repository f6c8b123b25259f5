-- List the statements that took longest in total, with their tag, from pg_stat_statements.
-- returns: rows
-- extension: pg_stat_statements
select
    s.calls,
    s.rows as row_count,
    s.temp_blks_written as blocks_spilled,
    substring(s.query from '/\* (\w+\.\w+( -?\w+)?) \*/') as tag,
    round(s.total_exec_time::numeric, 1)::double precision as total_ms,
    round(s.mean_exec_time::numeric, 3)::double precision as mean_ms,
    round(s.max_exec_time::numeric, 1)::double precision as max_ms,
    left(regexp_replace(s.query, '\s+', ' ', 'g'), 120) as query
from pg_stat_statements as s
inner join pg_database as d on s.dbid = d.oid
where d.datname = current_database()
order by s.total_exec_time desc
limit 25;
