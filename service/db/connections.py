"""A pool that lends raw connections from a list of the free ones: no proxy, no reset query, no timer for each loan."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import asyncpg
from loguru import logger

from service.db.errors import DRIVER_ERRORS

IDLE_SECONDS = 300.0
CANCEL_SECONDS = 5.0  # that the server may take to end a statement that its client has cancelled


class PooledConnection(asyncpg.Connection):
    """A connection of a pool, with what asyncpg keeps for its own pool (the stubs know none of it)."""

    pool: Collection[Any] = ()

    def is_reusable(self) -> bool:
        """Return whether the connection is open, and neither cancels a statement nor is inside a transaction."""
        protocol = self._protocol  # type: ignore[attr-defined]
        return not (
            self._aborted  # type: ignore[attr-defined]
            or protocol._is_cancelling()
            or protocol.is_in_transaction()
            or not protocol.is_connected()
        )

    def is_cancelling(self) -> bool:
        """Return whether the server has yet to end a statement that its client has cancelled."""
        return bool(self._protocol._is_cancelling())  # type: ignore[attr-defined]

    async def finish_cancelling(self) -> None:
        """Wait until the server has ended it.

        Raises: TimeoutError after CANCEL_SECONDS; the connection is then closed.
        """
        await self._protocol._wait_for_cancellation(CANCEL_SECONDS)  # type: ignore[attr-defined]

    def _drop_global_statement_cache(self) -> None:
        """Let all connections prepare their statements again: one has found that the schema has changed."""
        for connection in self.pool:
            connection._drop_local_statement_cache()

    def _drop_global_type_cache(self) -> None:
        for connection in self.pool:
            if not connection.is_closed():
                connection._drop_local_type_cache()


class ConnectionPool:
    """At most `size` connections, made at first use and lent to one caller at a time, in the order of asking.

    A slot is the right to have one connection. It belongs to a free connection, to a caller, or to a connection whose
    statement is being cancelled. The methods that return a slot never wait: no cancellation can lose one.
    asyncpg's own pool makes a task, a timer and a proxy for each loan, and a task to return it.
    """

    def __init__(self, connect: Callable[[], Awaitable[PooledConnection]], *, size: int) -> None:
        self._connect = connect
        self._size = size
        self._used_slots = 0
        self._connections: set[PooledConnection] = set()
        self._free: list[tuple[PooledConnection, float]] = []  # with the time of its return; the last one is lent first
        self._waiting: OrderedDict[asyncio.Future[PooledConnection | None], float] = (
            OrderedDict()
        )  # with the end of the wait
        self._wait_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._cancelling: set[asyncio.Task[None]] = set()
        self._all_returned: asyncio.Future[None] | None = None
        """Set by `close`."""
        self._loop = asyncio.get_running_loop()

    @property
    def open_connections(self) -> int:
        """The number of connections that are not closed."""
        return sum(not connection.is_closed() for connection in self._connections)

    @property
    def free_connections(self) -> int:
        """The number of connections that are not closed and not lent."""
        return sum(not connection.is_closed() for connection, _ in self._free)

    def acquire_nowait(self) -> PooledConnection | None:
        """Return a free connection, if there is one. Then nobody waits."""
        while self._free and not self._all_returned:
            connection, _ = self._free.pop()
            if not connection.is_closed():
                return connection
            self._discard(connection)
        return None

    async def acquire(self, seconds: float) -> PooledConnection:
        """Return a free connection, or make one, or wait for one.

        Raises: TimeoutError after `seconds`, InterfaceError if the pool is closed, and the driver's errors.
        """
        if connection := self.acquire_nowait():
            return connection
        ends_at = self._loop.time() + seconds
        if self._all_returned:
            raise asyncpg.InterfaceError("pool is closing")
        if self._used_slots < self._size:
            self._used_slots += 1
        elif connection := await self._wait(ends_at):
            return connection
        try:
            async with asyncio.timeout_at(ends_at):
                connection = await self._connect()
        except BaseException:
            self._free_slot()
            raise
        connection.pool = self._connections
        self._connections.add(connection)
        if self._all_returned:
            self._discard(connection)
            raise asyncpg.InterfaceError("pool is closing")
        return connection

    async def _wait(self, ends_at: float) -> PooledConnection | None:
        """Wait for a connection, or for a slot without one (None)."""
        waiter: asyncio.Future[PooledConnection | None] = self._loop.create_future()
        self._waiting[waiter] = ends_at
        if self._wait_timer is None or ends_at < self._wait_timer.when():
            self._set_wait_timer()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and not waiter.exception():  # both came in one pass of the loop
                if connection := waiter.result():
                    self.release(connection)
                else:
                    self._free_slot()
            raise

    def _set_wait_timer(self) -> None:
        """Set the one timer of all waiters. It stays when its waiter leaves, so that a short wait costs none."""
        if self._wait_timer:
            self._wait_timer.cancel()
        self._wait_timer = self._loop.call_at(min(self._waiting.values()), self._end_waits) if self._waiting else None

    def _end_waits(self) -> None:
        now = self._loop.time()
        for waiter in [waiter for waiter, ends_at in self._waiting.items() if ends_at <= now]:
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_exception(TimeoutError())
        self._set_wait_timer()

    def release(self, connection: PooledConnection) -> None:
        """Return a connection: lend it to the first that waits, or keep it.

        One whose statement is being cancelled comes back afterwards. One that is closed or left inside a transaction is
        discarded.
        """
        if connection.is_reusable():
            if not (self._waiting and self._pass_on(connection)):
                self._keep(connection)
        elif connection.is_closed():
            self._discard(connection)
        elif connection.is_cancelling():
            task = self._loop.create_task(self._finish_cancelling(connection))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        else:  # inside a transaction
            self._discard(connection)

    async def _finish_cancelling(self, connection: PooledConnection) -> None:
        try:
            await connection.finish_cancelling()
        except DRIVER_ERRORS:
            connection.terminate()
        finally:
            self.release(connection)

    def _keep(self, connection: PooledConnection) -> None:
        self._free.append((connection, self._loop.time()))
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_SECONDS, self._discard_idle)
        if self._all_returned:
            self._report_if_all_returned(self._all_returned)

    def _discard_idle(self) -> None:
        begun = self._loop.time() - IDLE_SECONDS
        while self._free and self._free[0][1] <= begun:
            self._discard(self._free.pop(0)[0])
        self._idle_timer = (
            self._loop.call_at(self._free[0][1] + IDLE_SECONDS, self._discard_idle) if self._free else None
        )

    def _discard(self, connection: PooledConnection) -> None:
        self._connections.discard(connection)
        connection.terminate()
        self._free_slot()

    def _free_slot(self) -> None:
        """Let the first that waits make a connection."""
        if not self._pass_on(None):
            self._used_slots -= 1
            if self._all_returned:
                self._report_if_all_returned(self._all_returned)

    def _pass_on(self, connection: PooledConnection | None) -> bool:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _report_if_all_returned(self, all_returned: asyncio.Future[None]) -> None:
        if len(self._free) == self._used_slots and not all_returned.done():
            all_returned.set_result(None)

    async def close(self, seconds: float) -> None:
        """Refuse those that wait, and close all connections after their return; terminate them after `seconds`."""
        self._all_returned = self._loop.create_future()
        self._report_if_all_returned(self._all_returned)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(asyncpg.InterfaceError("pool is closing"))
        self._waiting.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._all_returned
                await asyncio.gather(*(connection.close() for connection in self._connections))
        except DRIVER_ERRORS:
            logger.warning("database connections terminated")
        finally:
            for timer in (self._wait_timer, self._idle_timer):
                if timer:
                    timer.cancel()
            for connection in self._connections:
                connection.terminate()
