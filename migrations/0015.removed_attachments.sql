-- Attachments that are gone, as long as their files are still to be removed: the transaction that ends an attachment, whoever
-- makes it, writes down what is left to do behind its commit, and a crash in between loses nothing.
--
-- Locks: `share row exclusive` on attachments for the moment in which the trigger is made.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

create table removed_attachments (
    key text collate "C" not null,
    task_id bigint not null,
    attachment jsonb not null,
    with_task boolean not null,
    removed_at timestamptz not null default now(),
    claimed_until timestamptz,
    constraint removed_attachments_pkey primary key (key)
);

comment on table removed_attachments is 'Attachments whose files are still to be removed from the store.';
comment on column removed_attachments.attachment is 'The whole row, for a task that is restored before the file is gone.';
comment on column removed_attachments.with_task is 'Whether it went with its task, and comes back with it.';
comment on column removed_attachments.claimed_until is
'Until then a process removes the file; null where none has tried yet, so that the file is certainly there.';

create index removed_attachments_due_idx on removed_attachments (coalesce(claimed_until, '-infinity'));
create index removed_attachments_task_idx on removed_attachments (task_id) where with_task;

create function attachments_leave_file() returns trigger
language plpgsql as $$
begin
    insert into removed_attachments (key, task_id, attachment, with_task)
    values (old.key, old.task_id, to_jsonb(old), not exists (select from tasks as t where t.id = old.task_id));
    return null;
end
$$;

create trigger attachments_leave_file
after delete on attachments
for each row execute function attachments_leave_file();
