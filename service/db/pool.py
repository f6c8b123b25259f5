"""The pool of connections: made here, handed out with a timeout, never changed by a session setting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import asyncpg
import asyncpg.pool
import orjson

from service.core import metrics
from service.core.server_timing import measured
from service.core.settings import Settings
from service.db.errors import DRIVER_ERRORS, translate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

APPLICATION_NAME = "task-manager"  # the trigger that records events knows the service's own sessions by it
CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 5.0
# Connections of their own for what reads much, so that it waits for its like and not in the way of anything else.
REPORT_CONNECTIONS = 4
EXPORTS = 2  # of these, so that two are left for what is soon done
REPORT_SECONDS = 30
# And for many tasks at once: long texts take seconds to index, and more of them at once are done no sooner.
BULK_CONNECTIONS = 2
BULK_SECONDS = 20
# How long a statement waits for a lock, so that one locked table does not hold every connection. Longer than
# PostgreSQL's deadlock_timeout of 1 s: the server finds a deadlock first, and what it rolls back runs again.
LOCK_SECONDS = 2
STATEMENTS = 100  # that a connection keeps prepared
# Who reads a stream takes its own time, and the role may have a limit for such pauses.
UNHURRIED = "set local idle_in_transaction_session_timeout = 0"
KEPT_BY_POOLERS = ("application_name", "timezone")  # from transaction to transaction; they refuse others
# What a role's or database's defaults must not decide: quotas and restores count on the isolation.
PINNED = {"default_transaction_isolation": "read committed", "default_transaction_read_only": "off"}
WRITABLE = "set local transaction_read_only = off; "


class Database:
    """A pool whose connections are acquired with a timeout."""

    def __init__(
        self,
        pool: Pool,
        *,
        name: str,
        acquire_seconds: float,
        statement_seconds: float,
        settings: str = "",
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self.pool = pool
        self.acquire_seconds = acquire_seconds
        self.statement_seconds = statement_seconds
        self.settings = settings
        """SQL that sets for one transaction what the pooler refuses for a session; empty without a pooler."""
        self._used = metrics.POOL_USED.labels(name)
        self._waits = metrics.POOL_WAITS.labels(name)
        self.on_commit = on_commit
        """Called after a commit whose statement `notifies`."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for a few statements; TimeoutError where none is free in time."""
        with self._waits.time():
            connection = await self.pool.acquire(timeout=self.acquire_seconds)
        try:
            with self._used.track_inprogress():
                yield connection
        finally:
            await self.pool.release(connection)

    @asynccontextmanager
    async def begun(self, connection: Connection, *, writes: bool = True) -> AsyncIterator[None]:
        """Begin a transaction with the service's settings; commit it after the block, or roll back if the block fails.

        writes: whether it overrides a read-only default; a standby refuses that.
        """
        async with connection.transaction(isolation="read_committed"):
            if self.settings:
                await connection.execute(self.settings + WRITABLE * writes)
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Lend what runs statements that are committed together, behind the block, or rolled back where it fails.

        ServiceError where the database refuses the commit or is away.
        """
        try:
            async with AsyncExitStack() as stack:
                lent = Transaction(self, stack)
                yield lent
                with measured("db"):
                    await stack.pop_all().aclose()
        except DRIVER_ERRORS as error:
            raise translate(error) from error
        if lent.notifies:
            self.on_commit()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Lend a connection whose statements all see one moment, and are planned for their values each time.

        A statement whose plans differ widely in cost may get a generic one, which is no good for any of them.
        ServiceError where the database is away.
        """
        try:
            async with AsyncExitStack() as stack:
                with measured("db"):
                    connection = await stack.enter_async_context(self.connection())
                    await stack.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
                    await connection.execute(self.settings + "set local plan_cache_mode = force_custom_plan")
                yield connection
        except DRIVER_ERRORS as error:
            raise translate(error) from error


class Transaction:
    """Statements that are committed together; it takes a connection, and begins, with the first of them."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.notifies = False
        """Whether one of them does."""
        self._database = database
        self._stack = stack
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        """Give the transaction's connection."""
        if self._connection is None:
            connection = await self._stack.enter_async_context(self._database.connection())
            await self._stack.enter_async_context(self._database.begun(connection))
            self._connection = connection
        return self._connection


Executor: TypeAlias = "Database | Transaction | Connection"


@asynccontextmanager
async def connected(
    url: str, settings: Settings, *, pooler: str = "", on_commit: Callable[[], None] = lambda: None
) -> AsyncIterator[Database]:
    """Open the pool on `url`. It connects at first use, so that the service starts while the database is away.

    pooler: `transaction` where `url` is that of a pooler which lends a session for no longer than a transaction.
    """
    milliseconds = settings.database_statement_timeout_ms
    async with _pooled(
        url,
        "",
        size=settings.database_pool_size,
        milliseconds=milliseconds,
        pooler=pooler,
        on_commit=on_commit,
    ) as database:
        yield database


@asynccontextmanager
async def for_reports(url: str, *, pooler: str = "") -> AsyncIterator[Database]:
    """Open the pool for reports on `url`: few connections, on which a statement may run longer."""
    async with _pooled(
        url, "reports", size=REPORT_CONNECTIONS, milliseconds=REPORT_SECONDS * 1000, pooler=pooler
    ) as database:
        yield database


@asynccontextmanager
async def for_bulk(
    url: str, *, pooler: str = "", on_commit: Callable[[], None] = lambda: None
) -> AsyncIterator[Database]:
    """Open the pool on `url` for what writes much: few connections, which one waits for."""
    async with _pooled(
        url,
        "bulk",
        size=BULK_CONNECTIONS,
        milliseconds=BULK_SECONDS * 1000,
        pooler=pooler,
        on_commit=on_commit,
    ) as database:
        yield database


@asynccontextmanager
async def _pooled(
    url: str,
    what_for: str,
    *,
    size: int,
    milliseconds: int,
    pooler: str,
    on_commit: Callable[[], None] = lambda: None,
) -> AsyncIterator[Database]:
    given = session_settings(what_for, milliseconds=milliseconds)
    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        timeout=CONNECT_SECONDS,
        command_timeout=milliseconds / 1000 + 1,
        server_settings={name: given[name] for name in KEPT_BY_POOLERS} if pooler else given,
        statement_cache_size=0 if pooler else STATEMENTS,  # the next one may come to a session that has not prepared it
        init=prepare,
        reset=_keep,
    )
    name = what_for or "requests"
    metrics.POOL_SIZE.labels(name).set(size)
    try:
        yield Database(
            pool,
            name=name,
            acquire_seconds=ACQUIRE_SECONDS,
            statement_seconds=milliseconds / 1000,
            settings=_for_transaction(given) if pooler else "",
            on_commit=on_commit,
        )
    finally:
        await _close(pool)


def session_settings(what_for: str, *, milliseconds: int) -> dict[str, str]:
    """Give the settings of a session with this statement timeout."""
    return {
        "application_name": f"{APPLICATION_NAME} {what_for}".rstrip(),
        "timezone": "UTC",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(round(LOCK_SECONDS * 1000)),
        "jit": "off",
        **PINNED,
    }


def _for_transaction(given: dict[str, str]) -> str:
    """Return SQL that sets the same for one transaction, but for `PINNED`, which its beginning replaces."""
    refused = {name: value for name, value in given.items() if name not in {*KEPT_BY_POOLERS, *PINNED}}
    return "".join(f"set local {name} = '{value}'; " for name, value in refused.items())


async def prepare(connection: Connection) -> None:
    """Make a new connection ready for statements."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=_text, decoder=_fragment)


def _text(fragment: orjson.Fragment) -> str:
    return orjson.dumps(fragment).decode()


def _fragment(text: str) -> orjson.Fragment:
    """Keep JSON as the server wrote it: it goes into the reply as it is."""
    return orjson.Fragment(text)


async def _keep(_connection: Connection) -> None:
    """No statement leaves session state behind, so the round trip of a reset query would buy nothing."""


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()
