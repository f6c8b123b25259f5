-- Show how much of each table and its indexes was found in memory.
-- returns: rows
-- nullable: table_hit_percent, index_hit_percent
select
    s.relname::text as of_table,
    s.heap_blks_read as table_blocks_read,
    s.idx_blks_read as index_blocks_read,
    (100.0 * s.heap_blks_hit / nullif(s.heap_blks_hit + s.heap_blks_read, 0))::double precision as table_hit_percent,
    (100.0 * s.idx_blks_hit / nullif(s.idx_blks_hit + s.idx_blks_read, 0))::double precision as index_hit_percent
from pg_statio_user_tables as s
order by s.heap_blks_read + coalesce(s.idx_blks_read, 0) desc, s.relname;
