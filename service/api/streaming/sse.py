"""Server-Sent Events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from service.api import responses
from service.api.state import AppState
from service.api.streaming.subscriptions import Items, client_connection_of, first_of, greeting, left
from service.core.errors import UnauthorizedError, UnavailableError
from service.events.event import Event
from service.events.hub import Item, Ready, Reset
from service.events.subscriber import EndedError, Subscriber

STREAM = "text/event-stream"


class _EventStream(Response):
    """Server-Sent Events (WHATWG HTML, section 9.2): ends with the token, the client or the server."""

    media_type = STREAM

    def __init__(self, state: AppState, subscriber: Subscriber, *, address: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._state = state
        self._subscriber = subscriber
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscriptions = self._state.subscriptions
        with subscriptions.from_address(self._address), subscriptions.of_user(self._subscriber.viewer.id):
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope.get(responses.HEAD):  # a stream would keep the next request on this connection waiting
            await send({"type": "http.response.body", "body": b""})
            return
        peer = client_connection_of(scope)
        with self._state.hub.subscribed(self._subscriber) as items:
            watched = [self._send(items, send), left(receive)]
            if peer:
                watched.append(_stopping(peer.stopping))
            with suppress(EndedError, UnauthorizedError, UnavailableError):
                self._subscriber.viewer = await self._state.session_cache.revalidate(self._subscriber.viewer)
                await first_of(*(asyncio.create_task(one) for one in watched))
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, items: Items, send: Send) -> None:
        async with aclosing(items):
            async for item in items:
                await send({"type": "http.response.body", "body": self._chunk(item), "more_body": True})

    def _chunk(self, item: Item) -> bytes:
        match item:
            case Event():
                return item.chunk
            case Ready() | Reset():
                said = greeting(item, self._state.event_log)
                return b"event: %b\nid: %b\ndata: %b\n\n" % (
                    said["type"].encode(),
                    said["cursor"].encode(),
                    orjson.dumps(said),
                )
            case None:
                return b": still here\n\n"


async def _stopping(stopping: asyncio.Event) -> None:
    await stopping.wait()
