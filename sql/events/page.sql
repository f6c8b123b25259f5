-- List the events that a position has not seen and the viewer may see, oldest first, and where the table stands.
-- returns: rows
-- params: viewer_id bigint, viewer_is_admin boolean, seen_snapshot text, seen_id bigint,
--   batch_snapshot text?, batch_id bigint?, after_id bigint, row_limit bigint, byte_limit bigint,
--   newest_at bigint
-- index: task_events_pkey, task_events_xid_idx, task_events_user_idx, task_events_previous_user_idx
-- nullable: id, type, task_id, user_id, at, task, xid, status_now, status_before
-- why: the last look saw a snapshot and a greatest id. New is what has a greater id, and what has not but belongs to a
--   transaction that was open then: its ids were taken before. A snapshot lists open transactions, but for those begun
--   behind the last one that had ended. The rule holds after a crash, too, which hands xids out again, but no ids.
--   What a restore brought with future transaction ids is not new until events.repair_future_xids has repaired it.
--   The newest event that was seen is known by its time, too: a database that was put back to an earlier state gives
--   ids out again.
--   A batch is what one look found new: the look itself is the present one, or an earlier one, whose rest is read.
--   `e.id + 0` keeps the primary key out of it: up to seen_id lies nearly the whole table, by transaction little.
--   Rows come cut to row_limit and byte_limit; `more` says that the batch goes on. There is always one row, so that the
--   position comes along, without an id where nothing is new.
with look as materialized (
    select
        h.expired_id,
        task_event_epoch() as epoch,
        pg_current_snapshot()::text as snapshot_now,
        greatest(h.expired_id, newest.id) as newest_id,
        coalesce(extract(epoch from newest.at) * 1000000, 0)::bigint as newest_at,
        coalesce($6, $4::bigint) <= h.expired_id or exists (
            select e.id
            from task_events as e
            where e.id = coalesce($6, $4) and (extract(epoch from e.at) * 1000000)::bigint = $10::bigint
        ) as is_known
    from task_event_horizon as h
    left join lateral (
        select
            e.id,
            e.at
        from task_events as e
        order by e.id desc
        limit 1
    ) as newest on true
),

begun_later as materialized (
    select e.id
    from task_events as e
    where
        $7::bigint < $4::bigint
        and e.xid >= pg_snapshot_xmax($3::text::pg_snapshot)
        and e.xid < pg_snapshot_xmax(pg_current_snapshot())
        and e.id + 0 > $7
        and e.id + 0 <= $4
),

found as (
    (
        select
            e.id,
            e.size
        from pg_snapshot_xip($3::text::pg_snapshot) as x (xid)
        cross join lateral (
            select
                e.id,
                e.size
            from task_events as e
            where
                $7::bigint < $4::bigint
                and e.xid = x.xid
                and e.id > $7
                and e.id <= $4
                and ($2 or e.user_id = $1 or e.previous_user_id = $1)
                and ($5::text is null or (e.id <= $6 and pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot)))
            order by e.id
            limit $8
        ) as e
    )
    union all
    (
        select
            e.id,
            e.size
        from begun_later as b
        inner join task_events as e on b.id = e.id
        where
            ($2 or e.user_id = $1 or e.previous_user_id = $1)
            and ($5::text is null or (e.id <= $6 and pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot)))
        order by e.id + 0
        limit $8
    )
    union all
    (
        select
            e.id,
            e.size
        from task_events as e
        where
            e.id > greatest($4, $7)
            and ($2 or e.user_id = $1)
            and ($5::text is null or (e.id <= $6 and pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot)))
        order by e.id
        limit $8
    )
    union all
    (
        select
            e.id,
            e.size
        from task_events as e
        where
            not $2
            and e.previous_user_id = $1
            and e.id > greatest($4, $7)
            and ($5::text is null or (e.id <= $6 and pg_visible_in_snapshot(e.xid, $5::text::pg_snapshot)))
        order by e.id
        limit $8
    )
),

batch as (
    select
        f.id,
        f.size
    from found as f
    order by f.id
    limit $8
),

measured as materialized (
    select
        b.id,
        sum(b.size) over (order by b.id) - b.size as bytes_before
    from batch as b
),

page as (
    select e.*
    from measured as m
    inner join task_events as e on m.id = e.id
    where m.bytes_before < $9::bigint
)

select
    look.expired_id,
    look.epoch,
    look.snapshot_now,
    look.newest_id,
    look.newest_at,
    look.is_known,
    e.id,
    e.type,
    e.task_id,
    e.user_id,
    e.previous_user_id,
    e.actor_id,
    e.at,
    e.changes,
    e.task,
    e.xid::text as xid,
    e.task ->> 'status' as status_now,
    e.changes #>> '{status,0}' as status_before,
    e.id is not null as is_event,
    (
        select count(*) = $8 or coalesce(bool_or(m.bytes_before >= $9), false)
        from measured as m
    ) as more
from look
left join page as e on true
order by e.id;
