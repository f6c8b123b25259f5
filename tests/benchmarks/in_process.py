"""Requests that are handed to an ASGI application in the same process, without an HTTP server; their CPU time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi import FastAPI

from service.app import create_app
from service.core import logs
from service.core.settings import Settings
from tests.conftest import SECRET_KEY

CONCURRENCY = 16
# Starlette's, so that an application of any kind fits.
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """One request, which may be sent many times."""

    method: str
    path: str
    token: str = ""
    query: bytes = b""
    body: bytes = b""

    def scope(self) -> dict[str, Any]:
        """Return a new scope, as uvicorn makes it."""
        headers = [(b"host", b"127.0.0.1:8000"), (b"authorization", f"Bearer {self.token}".encode())]
        if self.body:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 4711),
            "scheme": "http",
            "root_path": "",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "headers": headers,
            "state": {},
            "extensions": {},
        }


async def send(app: App, request: Request) -> None:
    """Send one request; its answer must be 2xx."""
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(request.scope(), receive, note)
    assert statuses in ([200], [201]), statuses


async def cpu_seconds(app: App, request: Request, *, number: int) -> float:
    """Send a block of requests, some at once; return the CPU time of one."""

    async def some() -> None:
        for _ in range(number // CONCURRENCY):
            await send(app, request)

    begun = time.process_time()
    await asyncio.gather(*(some() for _ in range(CONCURRENCY)))
    return (time.process_time() - begun) / (number // CONCURRENCY * CONCURRENCY)


@asynccontextmanager
async def service_running(database_url: str, redis_url: str) -> AsyncIterator[FastAPI]:
    """Open the application with everything on, and wait until its listener lets the session cache answer."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "secret_key": SECRET_KEY,
        "rate_limit_per_minute": 1_000_000,
        "log_file": "",
    }
    settings = Settings(_env_file=None, **values)  # type: ignore[call-arg]
    logs.setup(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        while not app.state.services.session_cache.is_current():  # noqa: ASYNC110 - its clock has no event
            await asyncio.sleep(0.01)
        yield app
