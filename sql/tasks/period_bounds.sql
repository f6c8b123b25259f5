-- Return between which ids and which last changes the tasks of a period lie; an empty range if it has none.
-- returns: row
-- params: created_from timestamptz?, created_before timestamptz?
-- index: tasks_block_idx, tasks_week_idx
-- why: both go with the time of creation, so that a list need not walk past what lies outside. They are bounds of whole
--   blocks: a skip scan asks one block after the other whether it has any of the period.
select
    coalesce(
        (
            select (t.id >> 14) << 14
            from tasks as t
            where
                t.created_at >= coalesce($1::timestamptz, '-infinity')
                and t.created_at < coalesce($2::timestamptz, 'infinity')
            order by t.id >> 14 asc
            limit 1
        ),
        1
    ) as first_id,
    coalesce(
        (
            select ((t.id >> 14) << 14) + 16383
            from tasks as t
            where t.created_at >= coalesce($1, '-infinity') and t.created_at < coalesce($2, 'infinity')
            order by t.id >> 14 desc
            limit 1
        ),
        0
    ) as last_id,
    coalesce(
        (
            select date_trunc('week', t.updated_at at time zone 'UTC') at time zone 'UTC'
            from tasks as t
            where t.created_at >= coalesce($1, '-infinity') and t.created_at < coalesce($2, 'infinity')
            order by date_trunc('week', t.updated_at at time zone 'UTC') asc
            limit 1
        ),
        'epoch'
    ) as changed_from,
    coalesce(
        (
            select
                least(
                    (date_trunc('week', t.updated_at at time zone 'UTC') + interval '7 days') at time zone 'UTC',
                    '9999-12-31Z'
                )
            from tasks as t
            where t.created_at >= coalesce($1, '-infinity') and t.created_at < coalesce($2, 'infinity')
            order by date_trunc('week', t.updated_at at time zone 'UTC') desc
            limit 1
        ),
        'epoch'
    ) as changed_before;
