"""Whether the service can serve: the database answers, and its schema has every migration of this release."""

from __future__ import annotations

from service.core.errors import UnavailableError
from service.db import migrations
from service.db.pool import Executor
from service.db.queries import q


async def missing(db: Executor) -> list[str]:
    """Give the migrations that the database has not seen; UnavailableError where it is away or has seen none."""
    applied = {row["migration_id"] for row in await q.dba.applied_migrations(db)}
    return [migration for migration in migrations.known() if migration not in applied]


async def check(db: Executor) -> None:
    """UnavailableError where requests cannot be served."""
    if await missing(db):
        raise UnavailableError(
            "The database's schema is behind this release: run `python -m service migrate`.", retry_after=10
        )
