-- The end of what was left to do for attachments that are gone: their files are, too.
-- returns: count
-- params: keys text[]
-- index: removed_attachments_pkey
delete from removed_attachments as r
where r.key = any($1);
