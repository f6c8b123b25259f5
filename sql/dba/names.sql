-- List constraints, indexes, extensions and nullable columns, by kind, each with its table.
-- returns: rows
-- nullable: of_table
-- why: `sql check` holds the headers against them.
select
    'constraint' as kind,
    c.conname::text as name,
    r.relname::text as of_table
from pg_constraint as c
inner join pg_class as r on c.conrelid = r.oid
where c.connamespace = current_schema()::regnamespace
union all
select
    'index' as kind,
    i.indexname::text as name,
    i.tablename::text as of_table
from pg_indexes as i
where i.schemaname = current_schema()
union all
select
    'extension' as kind,
    e.extname::text as name,
    null as of_table
from pg_extension as e
union all
select
    'nullable' as kind,
    a.attname::text as name,
    c.relname::text as of_table
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
