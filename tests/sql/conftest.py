"""What tests of statements share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncpg
import pytest

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Sessions: TypeAlias = Callable[..., Awaitable[Session]]


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[Sessions]:
    """Opens more sessions beside `sql`."""
    async with AsyncExitStack() as stack:

        async def open_one(**server_settings: str) -> Session:
            connection = await asyncpg.connect(database_url, server_settings=server_settings)
            stack.push_async_callback(connection.close)
            return connection

        yield open_one
