-- Change a setting until the transaction ends.
-- returns: value
-- params: name text, value text
select set_config($1, $2, true) as setting;
