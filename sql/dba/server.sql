-- Return the server's version as a number, and the encoding of the database.
-- returns: row
select
    current_setting('server_version_num')::integer as version_number,
    current_setting('server_encoding') as database_encoding;
