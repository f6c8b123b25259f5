"""The connection pools of one process: their profiles, session settings, transactions and snapshots."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg
import orjson

from service.core import metrics
from service.core.database_url import for_asyncpg
from service.core.server_timing import measured
from service.core.settings import Settings
from service.db.connections import ConnectionPool, PooledConnection
from service.db.errors import DRIVER_ERRORS, translate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ProfileName: TypeAlias = Literal["requests", "reports", "bulk"]

APPLICATION_NAME = "task-manager"  # the trigger that records events recognizes the service's sessions by this prefix
CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 5.0
MAX_EXPORTS = 2  # of the four report connections, so that two remain for short reports
BULK_CONNECTIONS = 2  # more bulk requests at once finish no sooner: long texts take seconds to index
# One locked table must not block every connection. Longer than PostgreSQL's deadlock_timeout of 1 s, so that the server
# finds a deadlock first and the statement runs again.
LOCK_SECONDS = 2
MAX_PREPARED_STATEMENTS = 100  # per connection
# A client may read a stream slowly, and the role may limit idle transactions.
NO_IDLE_TIMEOUT = "set local idle_in_transaction_session_timeout = 0"
KEPT_BY_POOLERS = ("application_name", "timezone")  # PgBouncer refuses all other settings of a session
# Defaults of a role or database must not change these: quotas and restores rely on the isolation.
PINNED = {"default_transaction_isolation": "read committed", "default_transaction_read_only": "off"}
WRITABLE = "set local transaction_read_only = off; "
# Parallel workers add 20 to 80 ms CPU to a search of 50, and take the cores from other requests.
PLANNED_EACH_TIME = {"plan_cache_mode": "force_custom_plan", "max_parallel_workers_per_gather": "0"}


@dataclass(frozen=True)
class PoolProfile:
    """The size of a pool, the timeout of its statements, and what its sessions add to `application_name`."""

    connections: int
    statement_timeout_ms: int
    purpose: str


def profiles(settings: Settings) -> dict[ProfileName, PoolProfile]:
    """Return the profile of each pool that a serving process opens.

    Reports and bulk writes have pools of their own, so that they wait for each other and never delay other requests.
    """
    return {
        "requests": PoolProfile(settings.database_pool_size, settings.database_statement_timeout_ms, purpose=""),
        "reports": PoolProfile(connections=4, statement_timeout_ms=30_000, purpose="reports"),
        "bulk": PoolProfile(BULK_CONNECTIONS, statement_timeout_ms=20_000, purpose="bulk"),
    }


class Database:
    """A pool of connections, each acquired with a timeout."""

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        name: str,
        acquire_seconds: float,
        statement_seconds: float,
        transaction_settings: str,
        on_change: Callable[[], None],
    ) -> None:
        self.pool = pool
        self.acquire_seconds = acquire_seconds
        self.statement_seconds = statement_seconds
        self.transaction_settings = transaction_settings
        """SQL that begins every transaction with the settings that a pooler refuses; empty without a pooler."""
        self.on_change = on_change
        """Called after the commit of a statement whose header says `notifies`."""
        self._used = metrics.POOL_USED.labels(name)
        self._waits = metrics.POOL_WAITS.labels(name)

    def acquire_nowait(self) -> PooledConnection | None:
        """Return a connection that the caller must release, if one is free."""
        if connection := self.pool.acquire_nowait():
            self._waits.observe(0.0)
            self._used.inc()
        return connection

    async def acquire(self) -> PooledConnection:
        """Return a connection that the caller must release.

        Raises: TimeoutError if none is free within `acquire_seconds`.
        """
        begun = time.perf_counter()
        try:
            connection = await self.pool.acquire(self.acquire_seconds)
        finally:
            self._waits.observe(time.perf_counter() - begun)
        self._used.inc()
        return connection

    def release(self, connection: PooledConnection) -> None:
        """Return a connection to the pool. This never waits, so that no cancellation loses a connection."""
        self._used.dec()
        self.pool.release(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection until the block ends.

        Raises: TimeoutError if none is free within `acquire_seconds`.
        """
        connection = self.acquire_nowait() or await self.acquire()
        try:
            yield connection
        finally:
            self.release(connection)

    @asynccontextmanager
    async def begin(self, connection: Connection, *, writes: bool = True) -> AsyncIterator[None]:
        """Begin a transaction with the service's settings, and commit it after the block; roll back if the block fails.

        writes: override a read-only default; a standby refuses that.
        """
        async with connection.transaction(isolation="read_committed"):
            if self.transaction_settings:
                await connection.execute(self.transaction_settings + WRITABLE * writes)
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction, and commit its statements together after the block; roll back if the block fails.

        Raises: ServiceError if the database is unavailable or refuses the commit.
        """
        try:
            async with AsyncExitStack() as stack:
                transaction = Transaction(self, stack)
                yield transaction
                with measured("db"):
                    await stack.pop_all().aclose()
        except DRIVER_ERRORS as error:
            raise translate(error) from error
        if transaction.notifies:
            self.on_change()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Lend a connection whose statements share one snapshot and are planned for the values of each call.

        PostgreSQL may otherwise choose a generic plan, which is slow for a statement whose plans differ widely in cost.
        Raises: ServiceError if the database is unavailable.
        """
        try:
            async with AsyncExitStack() as stack:
                with measured("db"):
                    connection = await stack.enter_async_context(self.connection())
                    await stack.enter_async_context(connection.transaction(isolation="repeatable_read", readonly=True))
                    each_time = "; ".join(f"set local {name} = {value}" for name, value in PLANNED_EACH_TIME.items())
                    await connection.execute(self.transaction_settings + each_time)
                yield connection
        except DRIVER_ERRORS as error:
            raise translate(error) from error


class Transaction:
    """Statements that are committed together; the first one acquires the connection and begins the transaction."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.notifies = False
        """Whether the header of one of the statements says `notifies`."""
        self._database = database
        self._stack = stack
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        """Return the connection, and begin the transaction on the first call."""
        if self._connection is None:
            connection = await self._stack.enter_async_context(self._database.connection())
            await self._stack.enter_async_context(self._database.begin(connection))
            self._connection = connection
        return self._connection


Executor: TypeAlias = "Database | Transaction | Connection"


@asynccontextmanager
async def connected(
    url: str,
    settings: Settings,
    name: ProfileName = "requests",
    *,
    pooler: str = "",
    on_change: Callable[[], None] = lambda: None,
) -> AsyncIterator[Database]:
    """Open the pool of this name on `url`; it connects at first use, so that the service starts without its database.

    pooler: `transaction` if `url` leads to a pooler that lends a session for one transaction at a time.
    on_change: called after each commit that changes tasks.
    """
    profile = profiles(settings)[name]
    seconds = profile.statement_timeout_ms / 1000
    session = session_settings(profile.purpose, milliseconds=profile.statement_timeout_ms)
    connect_seconds = CONNECT_SECONDS

    async def connect() -> PooledConnection:
        connection = await asyncpg.connect(
            for_asyncpg(url),
            timeout=connect_seconds,
            command_timeout=seconds + 1,
            server_settings={setting: session[setting] for setting in KEPT_BY_POOLERS} if pooler else session,
            # Behind a pooler the next transaction may run in a session that has not prepared the statement.
            statement_cache_size=0 if pooler else MAX_PREPARED_STATEMENTS,
            connection_class=PooledConnection,
        )
        try:
            await register_codecs(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    connections = ConnectionPool(connect, size=profile.connections)
    metrics.POOL_SIZE.labels(name).set(profile.connections)
    try:
        yield Database(
            connections,
            name=name,
            acquire_seconds=ACQUIRE_SECONDS,
            statement_seconds=seconds,
            transaction_settings=_transaction_settings(session) if pooler else "",
            on_change=on_change,
        )
    finally:
        await connections.close(connect_seconds)


def session_settings(purpose: str, *, milliseconds: int) -> dict[str, str]:
    """Return the settings of a session whose statements run for at most `milliseconds`."""
    return {
        "application_name": f"{APPLICATION_NAME} {purpose}".rstrip(),
        "timezone": "UTC",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(round(LOCK_SECONDS * 1000)),
        "jit": "off",
        **PINNED,
    }


def _transaction_settings(session: dict[str, str]) -> str:
    """Return SQL that applies a session's settings to one transaction.

    `PINNED` is left out: `begin` sets the isolation and the write mode.
    """
    refused = {name: value for name, value in session.items() if name not in {*KEPT_BY_POOLERS, *PINNED}}
    return "".join(f"set local {name} = '{value}'; " for name, value in refused.items())


async def register_codecs(connection: Connection) -> None:
    """Make a new connection pass JSON through as `orjson.Fragment`, without parsing it."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=_encode, decoder=orjson.Fragment)


def _encode(fragment: orjson.Fragment) -> str:
    return orjson.dumps(fragment).decode()
