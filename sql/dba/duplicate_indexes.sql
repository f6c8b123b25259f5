-- List indexes that another index of the same table makes redundant: the same columns, or the first of them.
-- returns: rows
-- why: columns, order, collation, condition and method are compared; what is included is not. A unique one is needed.
with known as (
    select
        x.indexrelid,
        x.indrelid,
        x.indisunique,
        c.relam,
        coalesce(pg_get_expr(x.indpred, x.indrelid), '') as where_clause,
        array(
            select pg_get_indexdef(x.indexrelid, n, false) || ' ' || x.indoption[n - 1] || ' ' || x.indcollation[n - 1]
            from generate_series(1, x.indnkeyatts) as n
            order by n
        ) as key_columns
    from pg_index as x
    inner join pg_class as c on x.indexrelid = c.oid
    where c.relnamespace = current_schema()::regnamespace and x.indisvalid
)

select
    k.indrelid::regclass::text as of_table,
    k.indexrelid::regclass::text as needless,
    other.indexrelid::regclass::text as beside,
    pg_size_pretty(pg_relation_size(k.indexrelid)) as size
from known as k
inner join known as other on k.indrelid = other.indrelid and k.indexrelid <> other.indexrelid
where
    not k.indisunique
    and k.relam = other.relam
    and k.where_clause = other.where_clause
    and other.key_columns[1:cardinality(k.key_columns)] = k.key_columns
    and (
        cardinality(other.key_columns) > cardinality(k.key_columns)
        or other.indisunique
        or other.indexrelid < k.indexrelid
    )
order by of_table, needless, beside;
