-- Count the generic plans that this session has made of a prepared statement.
-- returns: value
-- params: name text
select p.generic_plans
from pg_prepared_statements as p
where p.name = $1;
