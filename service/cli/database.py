"""Opens the configured database for a command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.core.errors import ServiceError, StartError
from service.core.settings import Settings
from service.db import embedded, migrations, pool
from service.db.errors import DRIVER_ERRORS, translate
from service.db.headers import HeaderError
from service.db.pool import Database

T = TypeVar("T")


def with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the configured database and return its result.

    The embedded database is started and migrated first.
    Raises: ServiceError with one line for the operator.
    """

    async def run(url: str) -> T:
        try:
            async with pool.connected(url, settings) as database:
                return await work(database)
        except HeaderError as error:
            raise StartError(str(error)) from error
        except DRIVER_ERRORS as error:
            translated = translate(error)
            if isinstance(translated, ServiceError):
                raise translated from error
            raise StartError(" ".join(str(error).split())) from error

    with embedded.database(settings) as url:
        if settings.migrates_on_start:
            for name in migrations.migrate(url):
                print(f"applied  {name}", file=sys.stderr)
        return asyncio.run(run(url))
