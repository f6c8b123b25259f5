-- Return which of some storage keys belong to no attachment, present or waiting for removal.
-- returns: rows
-- params: keys text[]
-- index: attachments_key_key, removed_attachments_pkey
select k.key
from unnest($1::text[]) as k (key)
where
    not exists (
        select a.id
        from attachments as a
        where a.key = k.key
    )
    and not exists (
        select r.key
        from removed_attachments as r
        where r.key = k.key
    );
