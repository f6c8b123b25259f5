set local lock_timeout = '5s';
set local statement_timeout = '1h';

comment on column task_events.type is null;

alter table task_events
-- squawk-ignore constraint-missing-not-valid
add constraint task_events_type_check check (
    type in ('task.created', 'task.updated', 'task.deleted', 'task.restored')
);
