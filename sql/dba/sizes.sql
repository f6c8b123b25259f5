-- List the size of each table with its indexes and out-of-line storage, the largest first.
-- returns: rows
select
    c.relname::text as of_table,
    greatest(c.reltuples, 0)::bigint as estimated_rows,
    pg_relation_size(c.oid) as table_bytes,
    pg_indexes_size(c.oid) as index_bytes,
    pg_total_relation_size(c.oid) - pg_relation_size(c.oid) - pg_indexes_size(c.oid) as other_bytes,
    pg_total_relation_size(c.oid) as total_bytes,
    pg_size_pretty(pg_total_relation_size(c.oid)) as size
from pg_class as c
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p', 'm')
order by pg_total_relation_size(c.oid) desc, c.relname;
