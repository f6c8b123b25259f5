"""A database for the moment, with the schema and many skewed rows, beside the one that the settings name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from service.core.errors import StartError
from service.db import migrations
from service.db.pool import PINNED, Connection
from service.db.queries import q
from service.db.statements import FOLDER

SEED = FOLDER / "plans" / "seed.sql"
STATEMENT_SECONDS = 1800
WIDTH = 30


@asynccontextmanager
async def database(url: str) -> AsyncIterator[str]:
    """Make a migrated database on the same server, and drop it afterwards; StartError where that is not allowed."""
    name = f"workbench_{uuid4().hex}"
    try:
        server = await asyncpg.connect(url, timeout=10, server_settings=PINNED)
    except (asyncpg.PostgresError, OSError) as error:
        raise StartError(f"cannot make a scratch database: {error}") from error
    try:
        await server.execute(f"create database {name}")
        try:
            made = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
            await asyncio.to_thread(migrations.migrate, made)
            yield made
        finally:
            await server.execute(f"drop database {name} with (force)")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError) as error:
        raise StartError(f"cannot make a scratch database: {error}; it takes a role with createdb") from error
    finally:
        await server.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Open a session as the service has one, with time for long statements."""
    settings = {"timezone": "UTC", "jit": "off", "statement_timeout": str(STATEMENT_SECONDS * 1000), **PINNED}
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(url: str, *, rows: int, said: Callable[[str, float], None] = lambda *_: None) -> None:
    """Fill the database with so many tasks; said: is told what is under way and how much of all is done."""
    statements = _statements(SEED, rows)
    async with connected(url) as connection, connected(url) as watcher:
        for number, text in enumerate(statements):
            tell = partial(_tell, said, number, len(statements))
            watched = asyncio.create_task(_watch(watcher, rows, tell))
            try:
                await connection.execute(text)
            finally:
                watched.cancel()
                with suppress(asyncio.CancelledError):
                    await watched
    said("filled", 1)


def _tell(said: Callable[[str, float], None], number: int, of: int, part: float) -> None:
    said(f"seed.sql, statement {number + 1} of {of}", (number + part) / of)


def _statements(path: Path, rows: int) -> list[str]:
    text = path.read_text(encoding="utf-8").replace(":rows", str(rows))
    return [part for part in text.split(";\n") if part.strip()]


async def _watch(connection: Connection, rows: int, said: Callable[[float], None]) -> None:
    """Tell how far the insert of tasks has come: ids are taken one by one, before anything is committed."""
    while True:
        said(min(1.0, await q.dba.last_task_id(connection) / rows))
        await asyncio.sleep(0.5)


def bar(what: str, part: float) -> None:
    """Draw a progress bar on standard error, where that is a terminal."""
    if sys.stderr.isatty():
        done = round(WIDTH * part)
        sys.stderr.write(f"\r[{'#' * done}{'-' * (WIDTH - done)}] {part:4.0%}  {what:<40.40}")
        sys.stderr.write("\n" if part >= 1 else "")
        sys.stderr.flush()
