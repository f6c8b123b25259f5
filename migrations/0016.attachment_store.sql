-- Where in the store this database's files are, and whose turn it is to hold them against its rows.
--
-- A folder of its own for each database: two deployments may share a bucket, and neither takes the other's files for ones
-- without a row.
--
-- Locks: none that anyone waits for.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table attachment_store (
    one boolean not null default true,
    folder text collate "C" not null default replace(gen_random_uuid()::text, '-', ''),
    sweep_due_at timestamptz not null default '-infinity',
    constraint attachment_store_pkey primary key (one),
    constraint attachment_store_one_check check (one),
    constraint attachment_store_folder_check check (folder ~ '^[0-9a-f]{32}$')
);

comment on table attachment_store is 'One row: where in the store this database''s files are.';
comment on column attachment_store.folder is 'What the keys of new attachments begin with.';
comment on column attachment_store.sweep_due_at is
'When files and rows are held against each other next; put off while one process does it.';
insert into attachment_store default values;
