"""An application with settings of its own, started for one test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from service.accounts.passwords import Passwords
from service.app import create_app
from service.core.settings import Settings

WAIT_SECONDS = 20


@asynccontextmanager
async def serving(settings: Settings, *, listening: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application, wait for its listener, and yield a client without a token."""
    app = create_app(settings, passwords=Passwords(cost=4))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client,
    ):
        async with asyncio.timeout(WAIT_SECONDS):
            while listening and not app.state.services.listener.is_polling:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        yield client
