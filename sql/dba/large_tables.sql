-- List the tables with at least so many rows, by the statistics.
-- returns: rows
-- params: least_rows bigint
select c.relname::text as name
from pg_class as c
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and c.reltuples >= $1::bigint
order by c.relname;
