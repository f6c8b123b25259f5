"""The application on a real socket, with a database that no other test empties while somebody listens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from fastapi import FastAPI

from service.accounts.passwords import Passwords
from service.app import create_app
from tests.conftest import TEMPLATE, _database, make_settings
from tests.support.factories import Factory
from tests.support.sockets import served

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
