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
--   The update decides by the row's newest version, for which it waits where another transaction changes it. Only where
--   it changes none, the row is locked and read, and the verdict says why (PostgreSQL's CPU time without the commit:
--   316 us; 361 with a lock, a join and an update for each). `refused`: a trigger that a DBA added discards the change.
--   Weather belongs to its city: it comes in where the city changes; what is not that city's goes by a trigger.
--   The view does not show which city that is, hence the table; its columns are the view's, to which the union
--   holds them.
with changed as (
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
    where
        t.id = $1
        and (t.user_id = $2 or $3)
        and ($4::bigint[] is null or t.version = any($4))
        and set_config('service.actor_id', $2::bigint::text, true) is not null
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
),

unchanged as (
    select
        t.*,
        case
            when not (t.user_id = $2 or $3) then 'forbidden'
            when t.version <> all($4) then 'stale'
            else 'refused'
        end as verdict
    from task_view as t
    where t.id = $1 and not exists (select changed.id from changed)
    for update of t
)

select
    changed.*,
    'ok' as verdict
from changed
union all
select unchanged.*
from unchanged;
