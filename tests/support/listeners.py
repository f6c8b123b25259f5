"""Subscribers that disconnect, resume, and record all events they receive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.accounts.tokens import Tokens
from tests.conftest import SECRET_KEY

QUIET_SECONDS = 0.3
CONNECT_SECONDS = 10
POLL_SECONDS = 0.02
LOST = (OSError, httpx.TransportError, ConnectionClosed, TimeoutError)
"""The errors a subscriber gets from a service that is stopped, killed or without a database."""


HTTP = httpx.AsyncClient(timeout=CONNECT_SECONDS * 2, limits=httpx.Limits(max_keepalive_connections=10))
"""One client for all subscribers, since each client creates its own TLS context."""


def authorization(user_id: int, role: str) -> dict[str, str]:
    """Return the Authorization header of a user, for the session of `writers.log_in`."""
    token = Tokens((SECRET_KEY,), minutes=15).issue(user_id=user_id, role=role, session_id=user_id)
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Listener:
    """A subscriber of one of three kinds, on any of the replicas, that resumes from its last cursor."""

    kind: str
    user_id: int
    role: str
    replicas: list[str]
    dice: random.Random
    cursor: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return authorization(self.user_id, self.role)

    async def begin(self) -> None:
        """Set the cursor to the current position."""
        _, self.cursor = await self.page()

    async def page(self) -> tuple[list[dict[str, Any]], str]:
        """Return the events after the cursor, 200 or fewer, and the next cursor."""
        query: dict[str, str | int] = {"since": self.cursor, "limit": self.dice.randint(1, 200)} if self.cursor else {}
        answer = await HTTP.get(f"{self.dice.choice(self.replicas)}/events", params=query, headers=self.headers)
        if answer.status_code == 503:
            raise TimeoutError
        found = answer.json()
        assert answer.status_code == 200, found
        assert not found["reset"]
        return found["items"], found["cursor"]

    async def listen(self) -> None:
        """Receive events until cancelled, over many short connections."""
        while True:
            with suppress(*LOST):
                self.connections += 1
                await getattr(self, self.kind)(self.dice.choice([1, 5, 20, 100, 300]))
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self, _events: int) -> None:
        """Receive one page of events."""
        items, cursor = await self.page()
        self.heard += items
        self.cursor = cursor

    async def websocket(self, events: int) -> None:
        """Receive a number of events over a WebSocket."""
        async with web_socket(self.dice.choice(self.replicas), self.headers, since=self.cursor) as socket:
            assert orjson.loads(await socket.recv())["type"] == "ready"
            for _ in range(events):
                async with asyncio.timeout(QUIET_SECONDS):
                    self._hear(await socket.recv())
            if self.dice.random() < 0.5:
                socket.transport.abort()

    async def stream(self, events: int) -> None:
        """Receive a number of Server-Sent Events."""
        async with server_sent(self.dice.choice(self.replicas), self.headers, since=self.cursor) as messages:
            kind, _ = await anext(messages)
            assert kind == "ready"
            for _ in range(events):
                async with asyncio.timeout(QUIET_SECONDS):
                    _, data = await anext(messages)
                self._hear(data)

    def _hear(self, data: str | bytes) -> None:
        event = orjson.loads(data)
        assert event["type"].startswith("task."), event
        self.heard.append(event)
        self.cursor = event["cursor"]


@asynccontextmanager
async def web_socket(url: str, headers: dict[str, str], *, since: str = "") -> AsyncIterator[Any]:
    """Open a WebSocket; raise TimeoutError if the service refuses it with 503."""
    address = f"ws{url.removeprefix('http')}/ws" + (f"?since={since}" if since else "")
    try:
        async with connect(
            address,
            additional_headers=headers,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            max_queue=None,  # else a farewell waits for what the client has not taken out of its queue
        ) as socket:
            yield socket
    except InvalidStatus as error:
        if error.response.status_code == 503:
            raise TimeoutError from None
        raise


@asynccontextmanager
async def server_sent(
    url: str, headers: dict[str, str], *, since: str = ""
) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """Open a stream and yield its messages as pairs of event name and data."""
    asked = headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": since} if since else {})
    async with HTTP.stream("GET", f"{url}/events", headers=asked) as answer:
        if answer.status_code == 503:
            raise TimeoutError
        assert answer.status_code == 200, await answer.aread()
        async with aclosing(_messages(answer)) as messages:
            yield messages


async def _messages(answer: httpx.Response) -> AsyncGenerator[tuple[str, str], None]:
    rest = b""
    async for part in answer.aiter_raw():  # not its lines: they end at U+2028, too, which a stream's do not
        *messages, rest = (rest + part).split(b"\n\n")
        for message in messages:
            fields = dict(line.split(": ", 1) for line in message.decode().split("\n") if not line.startswith(":"))
            if fields:
                yield fields.get("event", "message"), fields["data"]
    raise TimeoutError  # the service has ended it
