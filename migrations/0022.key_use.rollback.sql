set local lock_timeout = '5s';
set local statement_timeout = '60s';

drop view api_key_view;

create view api_key_view as
select
    k.id,
    k.name,
    k.read_only,
    k.created_at,
    k.expires_at,
    k.user_id
from api_keys as k;

create or replace trigger api_keys_announce
after update or delete on api_keys
for each row execute function credentials_announce();

alter table api_keys drop column last_used_at;
