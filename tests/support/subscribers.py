"""Subscribers over a WebSocket and over Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.factories import User

WAIT_SECONDS = 20


@asynccontextmanager
async def dialled(
    address: str, *, token: str = "", protocols: tuple[str, ...] = (), origin: str | None = None, **query: str
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket; `token` is sent in the header, `query` in the URL."""
    async with connect(
        f"ws://{address}/ws?{urlencode(query)}",
        additional_headers={"Authorization": f"Bearer {token}"} if token else {},
        subprotocols=[Subprotocol(one) for one in protocols] or None,
        origin=Origin(origin) if origin else None,
        proxy=None,
    ) as socket:
        yield socket


@asynccontextmanager
async def listening(address: str, who: User, **query: str) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and read its first frame, `ready`."""
    async with dialled(address, token=who.token, protocols=(), origin=None, **query) as socket:
        assert (await told(socket))["type"] == "ready"
        yield socket


async def told(socket: ClientConnection) -> dict[str, Any]:
    """Return the next message, decoded from JSON."""
    async with asyncio.timeout(WAIT_SECONDS):
        message: dict[str, Any] = orjson.loads(await socket.recv())
        return message


async def say(socket: ClientConnection, **message: Any) -> None:
    """Send a message, encoded as JSON."""
    await socket.send(orjson.dumps(message).decode())


async def closed(socket: ClientConnection) -> int | None:
    """Read until the server closes; return the close code, or None without a close frame."""
    async with asyncio.timeout(WAIT_SECONDS):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else None


@asynccontextmanager
async def streaming(address: str, token: str = "", *, last_event_id: str = "", **query: str) -> AsyncIterator[Stream]:
    """Open a stream of Server-Sent Events."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id, "Authorization": f"Bearer {token}"}
    sent_headers = {name: value for name, value in headers.items() if value not in {"", "Bearer "}}
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", timeout=WAIT_SECONDS, trust_env=False) as client,
        client.stream("GET", "/events", params=query, headers=sent_headers) as response,
    ):
        yield Stream(response)


class Stream:
    """A response, read as the EventSource of a browser does."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str] | None:
        """Return the next event's fields, or a comment's text under `comment`; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self._lines:
                if not line and fields:
                    return fields
                name, _, value = line.partition(": ")
                fields[name or "comment"] = value
        return None
