set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table tasks reset (autovacuum_vacuum_scale_factor);
alter table tickets reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table sessions reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table idempotency_keys reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table task_events reset (
    autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_threshold,
    autovacuum_vacuum_insert_scale_factor,
    autovacuum_vacuum_insert_threshold
);
