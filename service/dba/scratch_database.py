"""Creates a scratch database with the schema and many skewed rows, on the server that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from service.core.database_url import for_asyncpg
from service.core.errors import StartError
from service.db import migrations
from service.db.pool import PINNED, Connection
from service.db.queries import q
from service.db.statements import PLANS_FOLDER

SEED = PLANS_FOLDER / "seed.sql"
STATEMENT_SECONDS = 1800
PROGRESS_SECONDS = 0.5


@asynccontextmanager
async def database(url: str) -> AsyncIterator[str]:
    """Create a migrated database on the server of `url`, yield its URL, and drop it afterwards.

    Raises: StartError if the server is unavailable or the role may not create databases.
    """
    name = f"workbench_{uuid4().hex}"
    try:
        server = await asyncpg.connect(for_asyncpg(url), timeout=10, server_settings=PINNED)
    except (asyncpg.PostgresError, OSError) as error:
        raise StartError(f"cannot create a scratch database: {error}") from error
    try:
        await server.execute(f"create database {name}")
        try:
            scratch_url = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
            await asyncio.to_thread(migrations.migrate, scratch_url)
            yield scratch_url
        finally:
            await server.execute(f"drop database {name} with (force)")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError) as error:
        raise StartError(f"cannot create a scratch database: {error}; this takes a role with createdb") from error
    finally:
        await server.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Open a session with the service's settings and a long statement timeout."""
    settings = {"timezone": "UTC", "jit": "off", "statement_timeout": str(STATEMENT_SECONDS * 1000), **PINNED}
    connection = await asyncpg.connect(for_asyncpg(url), server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(url: str, *, rows: int, advance: Callable[[float], object] = lambda _: None) -> None:
    """Run the seed with `rows` tasks.

    advance: called with each completed share of the work; the shares add up to 1.
    """
    statements = _seed_statements(rows)
    completed = 0.0

    def report(number: int, part: float) -> None:
        nonlocal completed
        share = (number + part) / len(statements)
        advance(share - completed)
        completed = share

    async with connected(url) as connection, connected(url) as watcher:
        for number, text in enumerate(statements):
            watching = asyncio.create_task(_watch(watcher, rows, partial(report, number)))
            try:
                await connection.execute(text)
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
    report(len(statements), 0)


def _seed_statements(rows: int) -> list[str]:
    text = SEED.read_text(encoding="utf-8").replace(":rows", str(rows))
    return [part for part in text.split(";\n") if part.strip()]


async def _watch(connection: Connection, rows: int, report: Callable[[float], None]) -> None:
    """Report the inserted share of the tasks: their sequence shows it before the insert commits."""
    while True:
        report(min(1.0, await q.dba.last_task_id(connection) / rows))
        await asyncio.sleep(PROGRESS_SECONDS)
