set local lock_timeout = '5s';
set local statement_timeout = '60s';
alter table tickets drop column session_id, drop column key_id;
drop trigger users_end_sessions on users;
drop function users_end_sessions();
drop trigger users_last_admin on users;
drop function users_keep_admin();
create or replace function users_announce() returns trigger
language plpgsql as $$
begin
    if tg_op = 'DELETE' or new.role <> old.role then
        perform pg_notify('accounts', old.id::text);
    end if;
    return null;
end
$$;
drop view api_key_view;
drop table api_keys;
drop table sessions;
drop function credentials_announce();
drop view account_view;
alter table users drop column active;
