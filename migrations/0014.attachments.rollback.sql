set local lock_timeout = '5s';
set local statement_timeout = '60s';

create or replace function task_changes(o tasks, n tasks) returns json
stable
language sql
return json_object(
    'title': case when o.title <> n.title then json_array(o.title, n.title) end,
    'description': case when o.description is distinct from n.description then json_array(o.description, n.description null on null) end,
    'status': case when o.status <> n.status then json_array(o.status, n.status) end,
    'city': case when o.city is distinct from n.city then json_array(o.city, n.city null on null) end,
    'weather': case when o.weather is distinct from n.weather then json_array(o.weather, n.weather null on null returning json) end,
    'user_id': case when o.user_id <> n.user_id then json_array(o.user_id, n.user_id) end,
    'created_at': case when o.created_at <> n.created_at then json_array(
        to_char(o.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(n.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ) end
    absent on null
    returning json
);

drop view attachment_view;
drop function attachment_json(attachments);
drop table attachments;
drop function attachments_change_task();
drop function attachments_refuse_truncate();
alter table tasks drop column attachment_change;
