-- The names of constraints, indexes and columns that may be null, by kind.
-- returns: rows
-- why: `sql check` holds the headers against them.
select
    'constraint' as kind,
    c.conname::text as name
from pg_constraint as c
where c.connamespace = current_schema()::regnamespace
union all
select
    'index' as kind,
    i.indexname::text as name
from pg_indexes as i
where i.schemaname = current_schema()
union all
select
    'nullable' as kind,
    a.attname::text as name
from pg_attribute as a
inner join pg_class as c on a.attrelid = c.oid
where
    c.relnamespace = current_schema()::regnamespace
    and c.relkind in ('r', 'p')
    and c.relname not like '\_yoyo%'
    and c.relname <> 'yoyo_lock'
    and a.attnum > 0
    and not a.attisdropped
    and not a.attnotnull;
