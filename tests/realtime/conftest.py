"""The application on a real socket, with a database that no other test empties while somebody listens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.app import create_app
from service.connections import ConnectionLimits
from service.protocol import LARGEST_MESSAGE, protocols
from service.security import Passwords
from tests.conftest import TEMPLATE, _database, make_settings
from tests.factories import Factory

ORIGIN = "https://friend.example"


@pytest.fixture(scope="session")
def live_database_url() -> Iterator[str]:
    """A migrated database for all tests that listen."""
    with _database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture(scope="session")
async def live_app(live_database_url: str) -> AsyncIterator[FastAPI]:
    """The application, started."""
    settings = make_settings(live_database_url, cors_origins=(ORIGIN,))
    app = create_app(settings, passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application that is started, and give host and port."""
    http, ws = protocols(ConnectionLimits(1000, trusted=()))
    config = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: http(config, state, {}), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    await asyncio.gather(*state.tasks, return_exceptions=True)


@pytest.fixture(scope="session")
async def address(live_app: FastAPI) -> AsyncIterator[str]:
    """Where the application is served: host and port."""
    async with served(live_app) as address:
        yield address


@pytest.fixture
async def sql(live_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session as a DBA's psql has one."""
    connection = await asyncpg.connect(live_database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def make(sql: asyncpg.Connection[asyncpg.Record], live_app: FastAPI) -> Factory:
    """Makes accounts, their clients, and tasks."""
    return Factory(sql, live_app)
