"""The statements of `sql/events/`: every reader gets every committed event once, however late it is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from service.events.event import Event
from service.events.log import ALL_TASKS_VIEWER, EventLog
from service.events.position import NO_POSITION, Position, Snapshot
from tests.conftest import SECRET_KEY
from tests.sql.conftest import Session, Sessions
from tests.support.factories import Factory, User

EVENT_LOG = EventLog(Cursors((SECRET_KEY,)))
LARGE = 1 << 20
TRIES = 100


async def drained(
    db: Database, position: Position, *, viewer: Viewer = ALL_TASKS_VIEWER, rows: int = 1000, size: int = LARGE
) -> tuple[list[int], Position]:
    """Read to the end; return the ids of the events and the last position."""
    ids: list[int] = []
    more = True
    while more:
        page = await EVENT_LOG.page(db, position, viewer=viewer, max_rows=rows, max_bytes=size)
        assert not page.reset
        assert len(page.events) <= rows
        ids += [event.id for event in page.events]
        position, more = page.position, page.more
    return ids, position


async def kept(sql: Session) -> list[int]:
    """Return the ids of all events that are in the table."""
    return [row["id"] for row in await sql.fetch("select id from task_events order by id")]


async def insert(session: Session, owner: User, count: int = 1) -> None:
    await session.execute(
        "insert into tasks (user_id, title) select $1, 'task ' || n from generate_series(1, $2) as n", owner.id, count
    )


async def test_the_position_is_after_all_existing_events(database: Database, make: Factory) -> None:
    ada = await make.user()
    row = await q.events.position(database)
    assert (row["newest_id"], row["expired_id"]) == (0, 0)
    await insert(make.sql, ada, 3)
    row = await q.events.position(database)
    assert [row["newest_id"]] == (await kept(make.sql))[-1:]
    assert await make.sql.fetchval(
        "select bool_and(pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) from task_events", row["snapshot_now"]
    )
    found = await q.events.page(
        database,
        viewer_id=0,
        viewer_is_admin=True,
        seen_snapshot=row["snapshot_now"],
        seen_id=row["newest_id"],
        batch_snapshot=None,
        batch_id=None,
        after_id=0,
        row_limit=10,
        byte_limit=LARGE,
        newest_at=row["newest_at"],
    )
    (nothing,) = found
    assert (nothing["is_event"], nothing["is_known"], nothing["more"]) == (False, True, False)
    assert nothing["epoch"] == row["epoch"]


async def test_the_epoch_is_the_clusters_the_timelines_and_the_tables(sql: Session, database: Database) -> None:
    cluster, timeline, table = (await q.events.position(database))["epoch"].split(".")
    assert int(cluster) == await sql.fetchval("select system_identifier from pg_control_system()")
    assert int(timeline, 16) == await sql.fetchval("select timeline_id from pg_control_checkpoint()")
    assert int(table) == await sql.fetchval("select 'task_events'::regclass::oid::bigint")


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 11, 1000])
async def test_pages_are_cut_by_rows_and_go_on_with_nothing_lost_or_twice(
    database: Database, make: Factory, rows: int
) -> None:
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, await make.user(), 10)
    page = await EVENT_LOG.page(database, here, max_rows=rows, max_bytes=LARGE)
    assert (len(page.events), page.more) == (min(rows, 10), rows <= 10)
    ids, end = await drained(database, here, rows=rows)
    assert ids == await kept(make.sql)
    assert (await drained(database, end))[0] == []


@pytest.mark.parametrize("size", [1, 500, 1200, LARGE])
async def test_pages_are_cut_by_bytes_and_have_one_event_at_least(database: Database, make: Factory, size: int) -> None:
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, await make.user(), 10)
    each = await make.sql.fetchval("select max(size) from task_events")
    page = await EVENT_LOG.page(database, here, max_rows=1000, max_bytes=size)
    assert (len(page.events), page.more) == (min(10, -(-size // each)), size != LARGE)
    assert (await drained(database, here, size=size))[0] == await kept(make.sql)


async def test_a_batch_continues_after_its_cursor_and_later_events_follow(database: Database, make: Factory) -> None:
    ada, here = await make.user(), await EVENT_LOG.current_position(database)
    await insert(make.sql, ada, 4)
    page = await EVENT_LOG.page(database, here, max_rows=2, max_bytes=LARGE)
    await insert(make.sql, ada, 3)
    rest, _ = await drained(database, page.position, rows=2)
    assert [event.id for event in page.events] + rest == await kept(make.sql)
    for event in page.events:
        after, _ = await drained(database, event.position)
        assert after == [one for one in await kept(make.sql) if one > event.id]
        from_before, _ = await drained(database, event.previous_position)
        assert from_before == [event.id, *after]


async def test_an_event_is_as_the_table_has_it(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    here = await EVENT_LOG.current_position(database)
    await make.task(ada)
    await make.sql.execute("update tasks set status = 'done', user_id = $1", bob.id)
    page = await EVENT_LOG.page(database, here, max_bytes=LARGE)
    created, updated = page.events
    assert (created.owners, created.statuses) == ({ada.id}, {"todo", None})
    assert (updated.owners, updated.statuses) == ({ada.id, bob.id}, {"todo", "done"})
    assert "changes" not in created.content
    row = await make.sql.fetchrow("select xid::text, at, task_id from task_events where id = $1", updated.id)
    assert row
    assert (updated.xid, updated.content["at"], updated.content["task_id"]) == (
        int(row["xid"]),
        row["at"],
        row["task_id"],
    )


async def late_and_listed(make: Factory, session: Sessions, owner: User) -> Session:
    """A transaction that began before the last one that has ended: a snapshot lists it."""
    late = await session()
    await late.execute("begin")
    await insert(late, owner)
    await insert(make.sql, owner)
    return late


async def late_and_last(make: Factory, session: Sessions, owner: User) -> Session:
    """A transaction that began after the last one that has ended, and got its id before that one did.

    It is the last one only until some other database's transaction ends, which the tests beside this one make happen.
    """
    early, late = await session(), await session()
    await early.execute("begin; select pg_current_xact_id()")
    await late.execute("begin")
    await insert(late, owner)
    await insert(early, owner)
    await early.execute("commit")
    return late


LATE = [late_and_listed, late_and_last]


@pytest.mark.parametrize("begin", LATE)
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_transaction_open_during_a_poll_is_new_to_the_next_poll_after_its_commit(
    database: Database,
    make: Factory,
    session: Sessions,
    begin: Callable[[Factory, Sessions, User], Awaitable[Session]],
    end: str,
) -> None:
    ada = await make.user()
    here = await EVENT_LOG.current_position(database)
    for _ in range(TRIES):
        late = await begin(make, session, ada)
        xid = int(await late.fetchval("select pg_current_xact_id()::text"))
        first, there = await drained(database, here)
        if (xid >= there.seen.xmax) is (begin is late_and_last):
            break
        await late.execute("rollback")
    assert (xid in there.seen.running) is (begin is late_and_listed)
    assert (xid >= there.seen.xmax) is (begin is late_and_last)
    assert (await drained(database, there))[0] == []
    await late.execute(end)
    second, _ = await drained(database, there)
    assert bool(second) is (end == "commit")
    assert not second or max(second) < max(first)
    assert sorted(first + second) == await kept(make.sql)
    assert (await drained(database, there, viewer=ada.viewer))[0] == second
    assert (await drained(database, there, viewer=(await make.user()).viewer))[0] == []


@pytest.mark.parametrize("begin", LATE)
async def test_a_batch_in_progress_does_not_include_later_commits(
    database: Database,
    make: Factory,
    session: Sessions,
    begin: Callable[[Factory, Sessions, User], Awaitable[Session]],
) -> None:
    ada = await make.user()
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, ada, 3)
    late = await begin(make, session, ada)
    page = await EVENT_LOG.page(database, here, max_rows=1, max_bytes=LARGE)
    await late.execute("commit")
    cursor = EVENT_LOG.cursor(page.position)
    for _ in range(2):  # the same from the same cursor
        position = EVENT_LOG.position(cursor)
        assert position
        rest, _ = await drained(database, position, rows=2)
        assert sorted([page.events[0].id, *rest]) == await kept(make.sql)
        assert len(set(rest)) == len(rest)


async def test_a_user_reads_events_of_own_tasks_and_of_tasks_moved_to_others(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, ada, 2)
    await insert(make.sql, bob)
    first, second = [row["id"] for row in await make.sql.fetch("select id from tasks where user_id = $1", ada.id)]
    await make.sql.execute("update tasks set user_id = $1 where id = $2", bob.id, first)
    await make.sql.execute("update tasks set status = 'done' where id = $1", first)
    await make.sql.execute("delete from tasks where id = $1", second)
    ids = await kept(make.sql)
    for rows in (1, 2, 1000):
        assert (await drained(database, here, rows=rows))[0] == ids
        assert (await drained(database, here, viewer=ada.viewer, rows=rows))[0] == [ids[0], ids[1], ids[3], ids[5]]
        assert (await drained(database, here, viewer=bob.viewer, rows=rows))[0] == [ids[2], ids[3], ids[4]]


async def test_old_events_leave_in_batches_and_positions_before_them_are_expired(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    start = await EVENT_LOG.current_position(database)
    await insert(make.sql, ada, 3)
    at_the_end = await EVENT_LOG.current_position(database)
    old = await kept(make.sql)
    await make.sql.execute("update task_events set at = now() - interval '90 days 1 minute'")
    await insert(make.sql, ada, 2)
    await make.sql.execute("update task_events set at = now() - interval '89 days' where id > $1", old[-1])
    halfway = (await EVENT_LOG.page(database, start, max_rows=2, max_bytes=LARGE)).position
    assert [await q.events.expire(database, days=90, row_limit=2) for _ in range(3)] == [2, 1, 0]
    assert await make.sql.fetchval("select expired_id from task_event_horizon") == old[-1]
    new = await kept(make.sql)
    assert len(new) == 2
    for position in (start, halfway):
        page = await EVENT_LOG.page(database, position, max_bytes=LARGE)
        assert page.reset
        assert not page.events
        assert (await drained(database, page.position))[0] == []
    assert (await drained(database, at_the_end))[0] == new


async def test_a_table_whose_events_have_all_expired_is_read_on(database: Database, make: Factory) -> None:
    ada = await make.user()
    await insert(make.sql, ada)
    before = await EVENT_LOG.current_position(database)
    await make.sql.execute("update task_events set at = now() - interval '91 days'")
    assert await q.events.expire(database, days=90, row_limit=10) == 1
    after = await EVENT_LOG.current_position(database)
    for position in (before, after):
        assert (await drained(database, position))[0] == []
    await insert(make.sql, ada)
    for position in (before, after):
        assert (await drained(database, position))[0] == await kept(make.sql)


async def test_one_process_at_a_time_deletes_old_events(database: Database, make: Factory, session: Sessions) -> None:
    await insert(make.sql, await make.user())
    await make.sql.execute("update task_events set at = now() - interval '91 days'")
    other = await session()
    await other.execute("begin; select * from task_event_horizon for update")
    assert await q.events.expire(database, days=90, row_limit=10) == 0
    await other.execute("rollback")
    assert await q.events.expire(database, days=90, row_limit=10) == 1


async def test_a_position_of_another_history_is_reset(database: Database, make: Factory) -> None:
    ada = await make.user()
    await insert(make.sql, ada, 2)
    here = await EVENT_LOG.current_position(database)
    newest = here.seen.newest_id
    lost = replace(here, seen=replace(here.seen, newest_id=newest + 100))
    in_a_lost_batch = replace(here, batch=replace(here.seen, newest_id=newest + 100), after_id=newest)
    for position in (NO_POSITION, replace(here, epoch="another"), lost, in_a_lost_batch):
        page = await EVENT_LOG.page(database, position, max_bytes=LARGE)
        assert (page.reset, page.events, page.more) == (True, [], False)
        assert page.position.seen.newest_id == newest
        assert (page.position.epoch, page.position.batch) == (here.epoch, None)
    assert not (await EVENT_LOG.page(database, here, max_bytes=LARGE)).reset


async def test_after_a_crash_a_transaction_number_that_is_used_again_hides_nothing(
    database: Database, make: Factory
) -> None:
    """PostgreSQL reuses the number of a transaction that left nothing; an earlier position treats it as old."""
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, await make.user())
    await make.sql.execute("update task_events set xid = '5'")
    assert (await drained(database, here))[0] == await kept(make.sql)


async def test_events_with_future_transaction_ids_after_a_restore_are_repaired_once(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    await insert(make.sql, ada, 2)
    async with make.sql.transaction():  # of which the application's own listener knows nothing
        await make.sql.execute(
            "update task_events set xid = (pg_current_xact_id()::text::bigint + 1000000)::text::xid8"
        )
        assert await q.events.has_future_xids(make.sql)
        assert [await q.events.repair_future_xids(make.sql, row_limit=9) for _ in range(2)] == [2, 0]
        assert not await q.events.has_future_xids(make.sql)
    here = await EVENT_LOG.current_position(database)
    await insert(make.sql, ada)
    assert (await drained(database, here))[0] == (await kept(make.sql))[2:]


async def test_events_closest_to_being_new_are_repaired_first(make: Factory) -> None:
    await insert(make.sql, await make.user(), 5)
    async with make.sql.transaction():
        await make.sql.execute(
            "update task_events set xid = (pg_current_xact_id()::text::bigint + 1000000000 - 100 * id)::text::xid8"
        )
        ids = [row["id"] for row in await make.sql.fetch("select id from task_events order by id")]
        assert await q.events.repair_future_xids(make.sql, row_limit=2) == 2
        rows = await make.sql.fetch("select id from task_events where xid = '3' order by id")
        assert [row["id"] for row in rows] == ids[3:]
        assert [await q.events.repair_future_xids(make.sql, row_limit=2) for _ in range(3)] == [2, 1, 0]


async def test_snapshot_visibility_agrees_with_the_server(sql: Session) -> None:
    random = Random(4)
    for _ in range(50):
        xmin = random.randrange(3, 2**40)
        xmax = xmin + random.randrange(0, 20)
        still_open = sorted(random.sample(range(xmin, xmax), random.randrange(0, xmax - xmin + 1)))
        text = f"{xmin}:{xmax}:{','.join(map(str, still_open))}"
        xids = list(range(max(3, xmin - 3), xmax + 4))
        seen = await sql.fetchval(
            "select array_agg(pg_visible_in_snapshot(x::text::xid8, $1::text::pg_snapshot) order by n)"
            " from unnest($2::bigint[]) with ordinality as u (x, n)",
            text,
            xids,
        )
        snapshot = Snapshot.parse(text, 100)
        assert snapshot.text == text == await sql.fetchval("select ($1::text::pg_snapshot)::text", text)
        assert [not snapshot.lacks(1, xid) for xid in xids] == seen
        assert all(snapshot.lacks(101, xid) for xid in xids)


def event(number: int, xid: int) -> Event:
    names = ("type", "task_id", "user_id", "previous_user_id", "actor_id", "at", "changes", "task")
    row = dict.fromkeys((*names, "status_now", "status_before")) | {"id": number, "xid": str(xid)}
    return Event(row, position=NO_POSITION, cursor="")


@dataclass
class Reader:
    """A reader that polls at intervals and sometimes resumes from an earlier cursor."""

    viewer: Viewer
    position: Position
    got: list[tuple[int, int]]
    cursors: list[tuple[str, int]]

    async def poll(self, db: Database, random: Random, *, going_back: float = 0.2) -> bool:
        if self.cursors and random.random() < going_back:
            chosen = random.randrange(len(self.cursors))
            cursor, length = self.cursors[chosen]
            found = EVENT_LOG.position(cursor)
            assert found
            self.position = found
            del self.got[length:], self.cursors[chosen + 1 :]
        rows, size = random.choice([1, 2, 3, 7, 1000]), random.choice([1, 700, 2000, LARGE])
        page = await EVENT_LOG.page(db, self.position, viewer=self.viewer, max_rows=rows, max_bytes=size)
        assert not page.reset
        for one in page.events:
            self.got.append((one.id, one.content["task_id"]))
            self.cursors.append((one.cursor, len(self.got)))
        self.position = page.position
        self.cursors.append((EVENT_LOG.cursor(page.position), len(self.got)))
        return page.more


@dataclass
class Writer:
    """One session, in a transaction or not; it alone touches the tasks that it has changed and not committed."""

    session: Session
    is_open: bool
    holds: set[int]


async def write(writer: Writer, tasks: set[int], owners: list[User], random: Random) -> None:
    owner, roll = random.choice(owners), random.random()
    task = random.choice(sorted(tasks)) if tasks else None
    if task is None or roll < 0.3:
        statement = "insert into tasks (user_id, title) values ($1, 'x') returning id"
        writer.holds.add(await writer.session.fetchval(statement, owner.id))
        return
    writer.holds.add(task)
    if roll < 0.4:
        await writer.session.execute("delete from tasks where id = $1", task)
    elif roll < 0.6:
        await writer.session.execute("update tasks set user_id = $2 where id = $1", task, owner.id)
    else:
        await writer.session.execute("update tasks set title = $2 where id = $1", task, f"{random.random()}")


@pytest.mark.parametrize("seed", range(6))
async def test_every_committed_event_is_read_once_in_any_order_of_writes_commits_and_polls(
    database: Database, make: Factory, session: Sessions, seed: int
) -> None:
    random = Random(seed)
    owners = [await make.user(), await make.user()]
    writers = [Writer(await session(), is_open=False, holds=set()) for _ in range(5)]
    here = await EVENT_LOG.current_position(database)
    viewers = [ALL_TASKS_VIEWER, *(owner.viewer for owner in owners)]
    readers = [Reader(viewer, here, [], []) for viewer in viewers]
    for _ in range(400):
        writer = random.choice(writers)
        act = random.random()
        if act < 0.35:
            await random.choice(readers).poll(database, random)
        elif not writer.is_open:
            await writer.session.execute("begin")
            writer.is_open = True
        elif act < 0.8:
            held = set().union(*(one.holds for one in writers if one is not writer))
            there = await writer.session.fetch("select id from tasks")
            await write(writer, {row["id"] for row in there} - held, owners, random)
        else:
            await writer.session.execute(random.choice(["commit", "commit", "rollback"]))
            writer.is_open, writer.holds = False, set()
    for writer in writers:
        await writer.session.execute("commit")
    for reader in readers:
        while await reader.poll(database, random, going_back=0):
            pass
        await check_all(make.sql, reader)


async def check_all(sql: Session, reader: Reader) -> None:
    """Hold what a reader has against the table."""
    rows: list[Any] = await sql.fetch(
        "select id, task_id from task_events where $2 or $1 in (user_id, previous_user_id) order by id",
        reader.viewer.id,
        reader.viewer.is_admin,
    )
    assert sorted(reader.got) == [tuple(row) for row in rows]
    assert len(rows) > 10
    for task in {task for _, task in reader.got}:
        mine = [number for number, of in reader.got if of == task]
        assert mine == sorted(mine)
