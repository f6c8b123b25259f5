-- Delete the records of attachments whose files are removed.
-- returns: count
-- params: keys text[]
-- index: removed_attachments_pkey
delete from removed_attachments as r
where r.key = any($1);
