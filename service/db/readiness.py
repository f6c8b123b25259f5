"""Checks that the database is available and that its schema has every migration of this release."""

from __future__ import annotations

from contextlib import suppress

from service.core.errors import StartError, UnavailableError
from service.db import migration_files
from service.db.pool import Executor
from service.db.queries import q

MIN_VERSION = 180_000


def check_server(*, version: int, encoding: str) -> None:
    """Check a server by its version (180004 is 18.4) and the encoding of the database.

    Raises: StartError if the service cannot use it.
    """
    if version < MIN_VERSION:
        raise StartError(f"PostgreSQL {MIN_VERSION // 10000} or newer is needed; the server has {version // 10000}")
    if encoding != "UTF8":
        raise StartError(f"the database needs the encoding UTF8 and has {encoding}")


async def check_server_of(db: Executor) -> None:
    """Check the server if it is available.

    Raises: StartError if the service cannot use it.
    """
    with suppress(UnavailableError):
        server = await q.dba.server(db)
        check_server(version=server["version_number"], encoding=server["database_encoding"])


async def pending_migrations(db: Executor) -> list[str]:
    """Return the ids of this release's migrations that are not applied.

    Raises: UnavailableError if the database is unavailable or has no schema.
    """
    applied = {row["migration_id"] for row in await q.dba.applied_migrations(db)}
    return [migration for migration in migration_files.release_ids() if migration not in applied]


async def check(db: Executor) -> None:
    """Check that the database can serve requests.

    Raises: UnavailableError if it cannot.
    """
    if await pending_migrations(db):
        raise UnavailableError("The database schema is outdated: run `python -m service migrate`.", retry_after=10)
