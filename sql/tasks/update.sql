-- Change one task if the viewer may and its version is one of those expected.
-- returns: row?
-- params: task_id bigint, viewer_id bigint, viewer_is_admin boolean, expected_versions bigint[]?,
--   set_title boolean, title text?, set_description boolean, description text?,
--   set_status boolean, status text?, set_city boolean, city text?,
--   weather jsonb?
-- index: tasks_pkey
-- raises: tasks_title_check -> invalid, tasks_description_check -> invalid, tasks_status_check -> invalid,
--   tasks_city_check -> invalid
-- notifies: task_events
-- why: the trigger that records the event reads the actor from the setting.
--   The row is locked first, so that the verdict speaks of the version that the update then changes.
--   Weather belongs to its city: it comes in where the city changes; what is not that city's goes by a trigger.
--   The view does not show which city that is, hence the table; its columns are the view's, to which the union
--   holds them.
with actor as materialized (
    select set_config('service.actor_id', $2::bigint::text, true)
),

target as materialized (
    select
        t.*,
        case
            when not (t.user_id = $2 or $3) then 'forbidden'
            when t.version <> all($4::bigint[]) then 'stale'
            else 'ok'
        end as verdict
    from actor
    cross join task_view as t
    where t.id = $1
    for update of t
),

changed as (
    update tasks as t
    set
        title = case when $5 then $6 else t.title end,
        description = case when $7 then $8 else t.description end,
        status = case when $9 then $10 else t.status end,
        city = case when $11 then $12 else t.city end,
        weather = case when $11 and $12 is distinct from t.city and $13::jsonb is not null then $13 else t.weather end,
        weather_city = case
            when $11 and $12 is distinct from t.city and $13 is not null then $12
            else t.weather_city
        end
    from target
    where t.id = $1 and target.verdict = 'ok'
    returning
        t.id,
        t.title,
        t.description,
        t.status,
        t.city,
        t.weather,
        t.user_id,
        t.created_at,
        t.updated_at,
        t.version
)

select
    changed.*,
    'ok' as verdict
from changed
union all
select target.*
from target
where target.verdict <> 'ok';
