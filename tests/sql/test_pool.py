"""The pool of connections: whatever is cancelled, none is lost and none is lent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from service.db import connections, pool
from service.db.connections import PooledConnection
from service.db.pool import Database
from tests.conftest import make_settings

Sql = Any
SIZE = 2


@asynccontextmanager
async def opened(url: str, *, size: int = SIZE) -> AsyncIterator[Database]:
    async with pool.connected(url, make_settings(url, database_pool_size=size)) as database:
        yield database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def pid(connection: asyncpg.Connection[Any]) -> int:
    return int(await connection.fetchval("select pg_backend_pid()"))


class Stepped:
    """A coroutine that is cancelled when it waits for the `n`th time."""

    def __init__(self, work: Awaitable[object], cancel_at: int) -> None:
        self._work = work
        self._cancel_at = cancel_at
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, object]:
        waits = self._work.__await__()
        try:
            waited = next(waits)
            while True:
                self.steps += 1
                if self.steps == self._cancel_at:
                    task = asyncio.current_task()
                    assert task
                    task.cancel()
                try:
                    got = yield waited
                except BaseException as error:
                    waited = waits.throw(error)
                else:
                    waited = waits.send(got)
        except StopIteration as end:
            return end.value


async def use(database: Database, lent: set[int]) -> None:
    async with database.connection() as connection:
        assert id(connection) not in lent
        lent.add(id(connection))
        try:
            async with connection.transaction():
                await connection.fetchval("select pg_sleep(0.001)::text")
        finally:
            lent.remove(id(connection))


async def all_lend(database: Database, *, size: int = SIZE) -> None:
    """Check that the pool lends `size` different connections that work, and no more."""
    lent = [await database.acquire() for _ in range(size)]
    assert len({await pid(one) for one in lent}) == size
    assert database.acquire_nowait() is None
    with pytest.raises(TimeoutError):
        await database.pool.acquire(0.01)
    for one in lent:
        database.release(one)


async def cancelled_at(step: int, database: Database, lent: set[int]) -> bool:
    stepped = Stepped(use(database, lent), step)

    async def work() -> None:
        await stepped

    await asyncio.wait([asyncio.create_task(work())])
    return stepped.steps >= step


@pytest.mark.parametrize("state", ["new", "free", "lent"])
async def test_no_cancellation_loses_a_connection_or_lends_one_twice(database_url: str, state: str) -> None:
    """At each point where acquiring, using and releasing waits: a new connection, a free one, and a wait for one."""
    step, is_reached = 0, True
    while is_reached:
        step += 1
        async with opened(database_url) as database:
            others, lent = [], set[int]()
            if state != "new":
                others = [await database.acquire() for _ in range(SIZE)]
            if state == "free":
                while others:
                    database.release(others.pop())
            cancelling = asyncio.create_task(cancelled_at(step, database, lent))
            waiting = asyncio.create_task(use(database, lent))
            await asyncio.sleep(0)
            while others:
                database.release(others.pop())
            is_reached = await cancelling
            await waiting
            assert not lent
            await all_lend(database)
    assert step > {"new": 6, "free": 3, "lent": 4}[state]


@pytest.mark.parametrize("is_handed_first", [True, False])
async def test_a_connection_meant_for_a_caller_that_is_cancelled_in_that_moment_goes_to_the_next(
    database_url: str, is_handed_first: bool
) -> None:
    async with opened(database_url, size=1) as database:
        connection = await database.acquire()
        first, second = (asyncio.create_task(database.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        if is_handed_first:
            database.release(connection)
        first.cancel()
        if not is_handed_first:
            database.release(connection)
        assert await asyncio.wait_for(second, 5) is connection
        assert first.cancelled()
        database.release(connection)
        await all_lend(database, size=1)


async def test_callers_are_served_in_the_order_of_asking(database_url: str) -> None:
    served: list[int] = []

    async def ask(one: Database, number: int) -> None:
        async with one.connection() as connection:
            served.append(number)
            await pid(connection)

    async with opened(database_url, size=1) as one:
        async with one.connection():
            asking = [asyncio.create_task(ask(one, number)) for number in range(20)]
            await asyncio.sleep(0)
            asking[3].cancel()
        await asyncio.wait(asking)
    assert served == [number for number in range(20) if number != 3]


async def test_waits_end_in_time_and_those_that_came_later_go_on(database: Database) -> None:
    lent = [await database.acquire() for _ in range(SIZE)]
    long = asyncio.create_task(database.acquire())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await database.pool.acquire(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(database.pool.acquire(0.01), 5)
    database.release(lent.pop())
    lent.append(await asyncio.wait_for(long, 5))
    for one in lent:
        database.release(one)
    await all_lend(database)


async def test_a_connection_is_lent_again_after_its_cancelled_statement_has_ended(database_url: str, sql: Sql) -> None:
    async with opened(database_url, size=1) as database:
        async with database.connection() as connection:
            backend = await pid(connection)
            with pytest.raises(TimeoutError):
                await connection.fetchval("select pg_sleep(60)::text", timeout=0.01)
            assert isinstance(connection, PooledConnection)
            assert connection.is_cancelling()
        assert database.acquire_nowait() is None
        (cancelling,) = database.pool._cancelling
        async with database.connection() as connection:
            assert await pid(connection) == backend
        await cancelling


async def test_a_connection_left_inside_a_transaction_is_replaced(database_url: str) -> None:
    async with opened(database_url, size=1) as database:
        async with database.connection() as connection:
            backend = await pid(connection)
            await connection.execute("begin")
        async with database.connection() as connection:
            assert await pid(connection) != backend
            assert not connection.is_in_transaction()


async def test_a_free_connection_that_is_lost_is_replaced_without_an_error(database: Database, sql: Sql) -> None:
    lent = [await database.acquire() for _ in range(SIZE)]
    backends = [await pid(one) for one in lent]
    for one in lent:
        database.release(one)
    for backend in backends:
        await sql.execute("select pg_terminate_backend($1, 10000)", backend)
    await until(lambda: database.pool.open_connections == 0)
    await all_lend(database)


async def test_a_failed_connection_leaves_its_slot_to_the_next_that_waits(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, size=1) as database:
        connect, failed = database.pool._connect, asyncio.Event()

        async def fail_once() -> PooledConnection:
            if failed.is_set():
                return await connect()
            await asyncio.sleep(0)
            failed.set()
            raise OSError

        monkeypatch.setattr(database.pool, "_connect", fail_once)
        first, second = (asyncio.create_task(database.acquire()) for _ in range(2))
        with pytest.raises(OSError):
            await first
        database.release(await second)
        await all_lend(database, size=1)


async def test_idle_connections_are_closed_the_oldest_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    lent = [await database.acquire() for _ in range(SIZE)]
    database.release(lent[0])
    await until(lambda: database.pool.open_connections == SIZE - 1)
    assert lent[0].is_closed()
    database.release(lent[1])
    await until(lambda: database.pool.open_connections == 0)
    await all_lend(database)


async def test_all_connections_learn_of_a_changed_schema_from_one(database: Database, sql: Sql) -> None:
    text = "select * from pool_changes"
    await sql.execute("create table pool_changes as select 1 as one")
    try:
        lent = [await database.acquire() for _ in range(SIZE)]
        for one in lent:
            await one.fetch(text)
        await sql.execute("alter table pool_changes add two bigint")
        assert list((await lent[0].fetchrow(text)) or ()) == [1, None]
        async with lent[1].transaction():  # in which asyncpg cannot prepare a statement anew after it has failed
            assert list((await lent[1].fetchrow(text)) or ()) == [1, None]
        for one in lent:
            database.release(one)
    finally:
        await sql.execute("drop table pool_changes")


async def test_a_pool_that_closes_waits_for_lent_connections_and_refuses_others(database_url: str) -> None:
    async with opened(database_url) as database:
        lent = [await database.acquire() for _ in range(SIZE)]
        waiting = asyncio.create_task(database.acquire())
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.pool.close(10))
        await asyncio.sleep(0)
        with pytest.raises(asyncpg.InterfaceError):
            await waiting
        assert await pid(lent[0])
        for one in lent:
            assert not closing.done()
            database.release(one)
            with pytest.raises(asyncpg.InterfaceError):
                await database.acquire()
        await closing
        assert all(one.is_closed() for one in lent)


async def test_a_connection_that_does_not_come_back_is_terminated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.5)
    async with opened(database_url) as database:
        connection = await database.acquire()
    assert connection.is_closed()
    database.release(connection)
