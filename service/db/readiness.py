"""Checks that the database is available and that its schema has every migration of this release."""

from __future__ import annotations

from service.core.errors import UnavailableError
from service.db import migration_files
from service.db.pool import Executor
from service.db.queries import q


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
