-- Autovacuum for tables that live from deletes or grow large.
--
-- By default autovacuum waits until a fifth of a table is dead: at 700 million events that is 100 million rows. These tables
-- have a fixed number of rows instead. `tasks` has 2 % of its rows.
--
-- Locks: `share update exclusive` on task_events, `share update exclusive` on idempotency_keys, `share update exclusive` on
-- sessions, `share update exclusive` on tickets, `share update exclusive` on tasks; reads and writes go on.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table task_events set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 200000
);
alter table idempotency_keys set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
alter table sessions set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
alter table tickets set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
alter table tasks set (autovacuum_vacuum_scale_factor = 0.02);
