-- When an API key was last used, so that its owner sees which ones may go.
--
-- The service writes it at most once an hour for each key. Such a write takes nothing away from anyone, so the trigger fires
-- only for the columns that processes remember: a use would else make every process forget the account and look at its sockets.
--
-- Locks: `access exclusive` on api_keys for a moment; the new column is null, so no row is rewritten.

set local lock_timeout = '5s';
set local statement_timeout = '60s';

alter table api_keys add column last_used_at timestamptz;

comment on column api_keys.last_used_at is
'When it was last used, as far as is written: at most once an hour. Null: never, or not since there is this column.';

create or replace trigger api_keys_announce
after update of id, user_id, hash, read_only, expires_at or delete on api_keys
for each row execute function credentials_announce();

create or replace view api_key_view as
select
    k.id,
    k.name,
    k.read_only,
    k.created_at,
    k.expires_at,
    k.user_id,
    k.last_used_at
from api_keys as k;
