-- List large tables that are read whole, and foreign keys without an index on their columns.
-- returns: rows
-- nullable: scans, rows_read, last_scan_at, column_names
select
    'read whole' as finding,
    s.relname::text as of_table,
    null::text as column_names,
    s.seq_scan as scans,
    s.seq_tup_read as rows_read,
    s.last_seq_scan as last_scan_at,
    pg_size_pretty(pg_table_size(s.relid)) as size
from pg_stat_user_tables as s
where s.seq_scan > 0 and s.n_live_tup >= 10000
union all
select
    'foreign key without an index' as finding,
    r.relname::text as of_table,
    string_agg(a.attname, ', ' order by k.place) as column_names,
    null::bigint as scans,
    null::bigint as rows_read,
    null::timestamptz as last_scan_at,
    pg_size_pretty(pg_table_size(r.oid)) as size
from pg_constraint as c
inner join pg_class as r on c.conrelid = r.oid
cross join unnest(c.conkey) with ordinality as k (attnum, place)
inner join pg_attribute as a on c.conrelid = a.attrelid and k.attnum = a.attnum
where
    c.contype = 'f'
    and r.relnamespace = current_schema()::regnamespace
    and not exists (
        select from pg_index as x
        where
            x.indrelid = c.conrelid
            and x.indisvalid
            and x.indpred is null
            and (x.indkey::smallint[])[0:cardinality(c.conkey) - 1] @> c.conkey
    )
group by c.oid, r.oid, r.relname
order by finding asc, rows_read desc nulls last, of_table asc;
