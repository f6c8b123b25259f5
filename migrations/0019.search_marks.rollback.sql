set lock_timeout = '5s';
set statement_timeout = 0;

create or replace function plain_words(value text) returns text
immutable
parallel safe
language sql
return lower(normalize(value, nfkc) collate "pg_c_utf8");

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
