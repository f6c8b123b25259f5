-- transactional: false
--
-- What is kept and what is sought is parted at the same marks. PostgreSQL's parser of texts leaves out `<String>` as a
-- tag and `&amp;` as an entity, and takes a path, an address, a version for one word; its parser of queries does not, so a
-- title was not found by itself, nor JIRA-123 by 123, nor report.pdf by report. A comma in place of every mark of ASCII
-- parts words for both, and leaves them neighbours: `R&D` is sought as a phrase. An address loses its scheme in both.
--
-- A hyphen negates that begins a word of a query, with marks between it and the word or without: -#word. It passes the
-- commas as a character that nobody types.
--
-- Of a query the first 32 words count, words being what is between marks: of a thousand it took seconds to look at a
-- million tasks. The cut falls behind a blank or comma; half a word would be found nowhere.
--
-- Most texts are ASCII, which is its own normal form; looking for that takes a thirtieth of the time of making it.
--
-- Locks: none that anyone waits for but rows, for moments: tasks whose words change are written anew in batches that each
-- commit. That is no change of the task: neither version nor events know it.

set lock_timeout = '5s';
set statement_timeout = 0;

create or replace function plain_words(value text) returns text
immutable
parallel safe
language sql
return regexp_replace(
    regexp_replace(
        lower(
            case when octet_length(value) = length(value) then value else normalize(value, nfkc) end collate "pg_c_utf8"
        ),
        '\m\w+://',
        '',
        'g'
    ),
    '[]!#$%&''()*+./:;<=>?@[\\^_`{|}~-]',
    ',',
    'g'
);

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
            w.words,
            websearch_to_tsquery('pg_catalog.english', w.words) as stems
        from regexp_replace(
            replace(value, chr(1), ' ') collate "pg_c_utf8", '(^|\s)-[^[:alnum:]\s"-]*(?=[[:alnum:]"])', '\1' || chr(1), 'g'
        ) as n (words)
        cross join lateral plain_words(n.words) as p (words)
        cross join lateral regexp_substr(
            left(p.words, 10000), '^(?:[^[:alnum:]]*[[:alnum:]]+){0,32}[^[:alnum:]\s,]*(?![^\s,])'
        ) as c (words)
        cross join lateral replace(coalesce(c.words, ''), chr(1), '-') as w (words)
    ) as s
);

do $$
declare
    first bigint;
    last bigint := (select min(t.id) - 1 from tasks as t);
begin
    loop
        first := last;
        select max(b.id) into last
        from (select t.id from tasks as t where t.id > first order by t.id limit 5000) as b;
        exit when last is null;
        update tasks as t set title = t.title
        where t.id > first and t.id <= last and t.words is distinct from task_words(t.title, t.description);
        commit;
    end loop;
end
$$;
