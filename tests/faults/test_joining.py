"""A subscriber that joins during writes or a listener outage gets every event once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from loguru import logger

from service.accounts.session_cache import SessionCache
from service.accounts.tokens import Tokens
from service.core.close_codes import SESSION_ENDED
from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db import pool as db
from service.db.pool import Database
from service.events import listener as listener_module
from service.events.event import Event
from service.events.hub import Hub, Item, Ready, Reset
from service.events.listener import Listener
from service.events.log import EventLog
from service.events.signals import Heartbeat, PollSignal
from service.events.subscriber import Subscriber, SubscriptionEndedError
from tests.conftest import SECRET_KEY, make_settings
from tests.support.clusters import program
from tests.support.writers import Sql, log_in, session

EVENT_LOG = EventLog(Cursors((SECRET_KEY,)))
TOKENS = Tokens((SECRET_KEY,), minutes=15)
OF_THE_FUTURE = "update task_events set xid = (pg_current_xact_id()::text::bigint + 1000000)::text::xid8"
WAIT_SECONDS = 10
LONG = 30_000  # events: many pages
LISTENS = (
    "select count(*) from pg_stat_activity where application_name = 'task-manager listener' and query like '%page%'"
)


@pytest.fixture
async def pool(own_database_url: str) -> AsyncIterator[Database]:
    async with db.connected(own_database_url, make_settings(own_database_url)) as database:
        yield database


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
async def dba(own_database_url: str) -> AsyncIterator[Sql]:
    async with session(own_database_url) as sql:
        await sql.execute("insert into users (username, password_hash) values ('ada', '')")
        yield sql


@pytest.fixture
async def viewer(dba: Sql) -> Viewer:
    user_id = await dba.fetchval("update users set role = 'admin' returning id")
    return Viewer(id=user_id, is_admin=True, session_id=await log_in(dba, user_id))


async def write(sql: Sql) -> int:
    """Make a task and return its event's id."""
    await sql.execute("insert into tasks (user_id, title) select id, 'By hand' from users")
    return int(await sql.fetchval("select max(id) from task_events"))


def make_listener(url: str, pool: Database, hub: Hub | None = None, heartbeat: Heartbeat | None = None) -> Listener:
    heartbeat = heartbeat or Heartbeat()
    return Listener(
        url,
        event_log=EVENT_LOG,
        hub=hub or Hub(pool, EVENT_LOG),
        sessions=SessionCache(pool, TOKENS, is_current=heartbeat.is_fresh),
        poll_signal=PollSignal(),
        heartbeat=heartbeat,
    )


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[None]:
    work = asyncio.create_task(listener.run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait([work])


async def soon(items: AsyncIterator[Item]) -> Item:
    async with asyncio.timeout(WAIT_SECONDS):
        while (item := await anext(items)) is None:
            pass
        return item


async def waiting(items: AsyncIterator[Item], subscriber: Subscriber) -> asyncio.Task[Item]:
    """Ask for the next, and come back when the subscriber has caught up and waits for it."""
    asked = asyncio.create_task(soon(items))
    async with asyncio.timeout(WAIT_SECONDS):
        while not subscriber._idle and not asked.done():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return asked


async def test_a_subscriber_before_the_listener_gets_earlier_events(
    own_database_url: str, pool: Database, dba: Sql, viewer: Viewer
) -> None:
    hub = Hub(pool, EVENT_LOG)
    subscriber = Subscriber(viewer, await EVENT_LOG.current_position(pool), float("inf"))
    with hub.subscribed(subscriber) as items:
        assert isinstance(await soon(items), Ready)
        asked = await waiting(items, subscriber)
        written = await write(dba)
        async with listening(make_listener(own_database_url, pool, hub)):
            event = await asked
            assert isinstance(event, Event)
            assert event.id == written


async def test_a_cursor_received_during_a_batch_does_not_repeat_events(
    own_database_url: str, pool: Database, dba: Sql, viewer: Viewer
) -> None:
    hub = Hub(pool, EVENT_LOG)
    start = await EVENT_LOG.current_position(pool)
    async with session(own_database_url) as other:
        late = other.transaction()
        await late.start()
        late_id = await write(other)
        early_id = await write(dba)
        frames: list[bytes] = []

        def take(frame: bytes) -> bool:
            frames.append(frame)
            return True

        subscriber = Subscriber(viewer, start, float("inf"), take)
        with hub.subscribed(subscriber) as items:
            assert isinstance(await soon(items), Ready)
            first = await soon(items)
            assert isinstance(first, Event)
            assert first.id == early_id > late_id
            asked = await waiting(items, subscriber)
            await late.commit()
            page = await EVENT_LOG.page(pool, start, max_bytes=1 << 20)
            assert [event.id for event in page.events] == [late_id, early_id]
            await hub.dispatch(page.events)
            async with asyncio.timeout(WAIT_SECONDS):
                direct = (event for event in page.events if event.websocket_frame in frames)
                second = next(direct, None) or await asked
            asked.cancel()
            assert isinstance(second, Event)
            assert second.id == late_id
            resumed = EVENT_LOG.position(second.cursor)
            assert resumed
            assert resumed == second.position
            following = await EVENT_LOG.page(pool, resumed, max_bytes=1 << 20)
            assert [event.id for event in following.events] == [], "the first one again"


async def test_a_logged_out_subscriber_gets_no_more_of_a_long_batch(
    own_database_url: str, pool: Database, dba: Sql, viewer: Viewer
) -> None:
    hub = Hub(pool, EVENT_LOG)
    heard: list[bytes] = []
    ending: list[asyncio.Task[str]] = []

    def take(frame: bytes) -> bool:
        heard.append(frame)
        if not ending:
            ending.append(asyncio.create_task(dba.execute("delete from sessions")))
        return True

    subscriber = Subscriber(viewer, await EVENT_LOG.current_position(pool), float("inf"), take)
    with hub.subscribed(subscriber) as items:
        assert isinstance(await soon(items), Ready)
        asked = await waiting(items, subscriber)
        listener = make_listener(own_database_url, pool, hub)
        async with listening(listener):
            while not listener.is_polling:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            while not subscriber._idle:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await dba.execute(
                "insert into tasks (user_id, title) select id, 'x' from users, generate_series(1, $1::int)", LONG
            )
            with pytest.raises(SubscriptionEndedError):
                await asked
    assert subscriber.end_code == SESSION_ENDED
    assert 0 < len(heard) < LONG, "all of it"


async def dumped(dba: Sql, url: str, folder: Path) -> Path:
    """Dump a database whose event is of a transaction of the cluster's future."""
    await write(dba)
    await dba.execute(OF_THE_FUTURE)
    dump = folder / "dump.sql"
    dump.write_text(program("pg_dump", "--clean", "--if-exists", url))
    return dump


async def restored(dump: Path, url: str) -> None:
    stop = "--set=ON_ERROR_STOP=1"
    await asyncio.to_thread(program, "psql", "--quiet", "--single-transaction", stop, f"--file={dump}", url)


async def wait_for_repair(dba: Sql) -> None:
    async with asyncio.timeout(WAIT_SECONDS):  # a subscriber may have seen the reset before the listener did
        while await dba.fetchval("select xid::text from task_events") != "3":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_events_of_a_dump_restored_under_a_running_listener_are_repaired(
    own_database_url: str, pool: Database, dba: Sql, viewer: Viewer, tmp_path: Path
) -> None:
    hub = Hub(pool, EVENT_LOG)
    dump = await dumped(dba, own_database_url, tmp_path)
    subscriber = Subscriber(viewer, await EVENT_LOG.current_position(pool), float("inf"))
    with hub.subscribed(subscriber) as items:
        assert isinstance(await soon(items), Ready)
        asked = await waiting(items, subscriber)
        async with listening(make_listener(own_database_url, pool, hub)):
            while not await dba.fetchval(LISTENS):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await restored(dump, own_database_url)
            assert isinstance(await asked, Reset)
            await wait_for_repair(dba)


async def test_events_of_a_dump_restored_without_subscribers_are_repaired(
    own_database_url: str, pool: Database, dba: Sql, tmp_path: Path
) -> None:
    dump = await dumped(dba, own_database_url, tmp_path)
    listener = make_listener(own_database_url, pool)
    async with listening(listener):
        while not listener.is_polling:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await restored(dump, own_database_url)
        await wait_for_repair(dba)


@asynccontextmanager
async def reader(url: str, dba: Sql) -> AsyncIterator[str]:
    """Return the URL by which a role reaches the database that may only read."""
    role = f"reader_{uuid4().hex}"
    await dba.execute(f"create role {role} login password '{role}'; grant pg_read_all_data to {role}")
    try:
        parts = urlsplit(url)
        yield urlunsplit(parts._replace(netloc=f"{role}:{role}@{parts.netloc.rpartition('@')[2]}"))
    finally:
        await dba.execute(f"drop role {role}")


@pytest.mark.parametrize("how", ["read-only", "locked"])
async def test_a_listener_polls_while_nothing_can_be_repaired(
    own_database_url: str, pool: Database, dba: Sql, log_lines: list[str], how: str
) -> None:
    await write(dba)
    await dba.execute(OF_THE_FUTURE)
    async with AsyncExitStack() as stack:
        url = own_database_url
        if how == "locked":
            await stack.enter_async_context(dba.transaction())
            await dba.execute("set local lock_timeout = 0; lock table task_events in share mode")
        else:
            url = await stack.enter_async_context(reader(own_database_url, dba))
        heartbeat = Heartbeat()
        listener = make_listener(url, pool, heartbeat=heartbeat)
        async with asyncio.timeout(WAIT_SECONDS), listening(listener):
            while not heartbeat.is_fresh():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for _ in range(3):
                await another_poll(listener)
    assert len([line for line in log_lines if "event repair postponed" in line]) == 1


async def test_a_listener_changes_nothing_if_no_event_needs_repair(
    own_database_url: str, pool: Database, dba: Sql, log_lines: list[str]
) -> None:
    await write(dba)
    async with reader(own_database_url, dba) as url:
        heartbeat = Heartbeat()
        listener = make_listener(url, pool, heartbeat=heartbeat)
        async with asyncio.timeout(WAIT_SECONDS), listening(listener):
            while not heartbeat.is_fresh():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [line for line in log_lines if "repair" in line] == []


async def test_a_listener_settles_where_sessions_are_read_only_by_default(
    own_database_url: str, pool: Database, dba: Sql, log_lines: list[str]
) -> None:
    await write(dba)
    await dba.execute(OF_THE_FUTURE)
    name = await dba.fetchval("select quote_ident(current_database())")
    await dba.execute(f"alter database {name} set default_transaction_read_only = on")
    await dba.execute(f"alter database {name} set default_transaction_isolation = serializable")
    listener = make_listener(own_database_url, pool)
    async with listening(listener):
        await wait_for_repair(dba)
    assert [line for line in log_lines if "event repair postponed" in line] == []


async def another_poll(listener: Listener) -> None:
    polled_at = listener._polled_at
    listener._poll_signal.set()
    while listener._polled_at == polled_at:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_rows_restored_after_their_table_are_repaired_in_batches(
    own_database_url: str, pool: Database, dba: Sql, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_REPAIRED_ROWS", 10)
    listener = make_listener(own_database_url, pool)
    async with listening(listener):
        while not listener.is_polling:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await dba.execute(
            "insert into task_events (xid, type, task_id, user_id, task, size)"
            " select (pg_current_xact_id()::text::bigint + 1000000 + 5 * n)::text::xid8, 'task.created', n, $1, '{}', 2"
            " from generate_series(1, 95) as n",
            viewer.id,
        )
        async with asyncio.timeout(WAIT_SECONDS):
            while await dba.fetchval("select count(*) from task_events where xid <> '3'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
