-- List the storage keys between two keys, in order, of attachments older than an hour.
-- returns: rows
-- params: after_key text, last_key text?, row_limit bigint
-- index: attachments_key_key
-- why: compared with the store's own list, which may have been read before a file was added.
select
    a.key,
    a.id
from attachments as a
where
    a.key > $1
    and ($2::text is null or a.key <= $2)
    and a.created_at < now() - interval '1 hour'
order by a.key
limit $3;
