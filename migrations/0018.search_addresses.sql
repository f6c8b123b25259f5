-- An address is sought as it is kept: without its scheme, whose colon would take it apart (`http & /host/path`), and with that
-- no task was found.
--
-- Locks: none that anyone waits for: a function alone is exchanged.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function words_sought(value text) returns tsquery
immutable
parallel safe
language sql
return (
    select
        case
            when numnode(s.stems) > 0 then s.stems
            else websearch_to_tsquery('pg_catalog.simple', s.words)
        end
    from (
        select
            p.words,
            websearch_to_tsquery('pg_catalog.english', p.words) as stems
        from regexp_replace(
            regexp_replace(left(plain_words(value), 10000) collate "pg_c_utf8", '\m\w+://', '', 'g'),
            '-{2,}|-(?![[:alnum:]"])',
            ' ',
            'g'
        ) as p (words)
    ) as s
);
