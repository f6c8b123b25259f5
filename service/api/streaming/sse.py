"""Server-Sent Events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.api import responses
from service.api.state import AppState
from service.api.streaming.subscriptions import (
    Items,
    client_connection_of,
    position_message,
    wait_for_disconnect,
    wait_for_first,
)
from service.core.errors import UnauthorizedError, UnavailableError
from service.events.event import Event
from service.events.hub import Item, Ready, Reset
from service.events.subscriber import Subscriber, SubscriptionEndedError

EVENT_STREAM = "text/event-stream"


class EventStream(Response):
    """A stream of Server-Sent Events (WHATWG HTML, section 9.2).

    It ends when the token expires, the client disconnects or the server stops.
    """

    media_type = EVENT_STREAM

    def __init__(self, state: AppState, subscriber: Subscriber, *, address: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._state = state
        self._subscriber = subscriber
        self._address = address

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscriptions = self._state.subscriptions
        with subscriptions.from_address(self._address), subscriptions.of_user(self._subscriber.viewer.id):
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope.get(responses.HEAD):  # an endless stream would block the next request on this connection
            await send({"type": "http.response.body", "body": b""})
            return
        connection = client_connection_of(scope)
        with self._state.hub.subscribed(self._subscriber) as items:
            work = [self._send(items, send), wait_for_disconnect(receive)]
            if connection:
                work.append(_wait_for_stop(connection.stopping))
            with suppress(SubscriptionEndedError, UnauthorizedError, UnavailableError):
                self._subscriber.viewer = await self._state.session_cache.revalidate(self._subscriber.viewer)
                await wait_for_first(*(asyncio.create_task(one) for one in work))
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, items: Items, send: Send) -> None:
        async with aclosing(items):
            async for item in items:
                await send({"type": "http.response.body", "body": self._render(item), "more_body": True})

    def _render(self, item: Item) -> bytes:
        match item:
            case Event():
                return item.sse_message
            case Ready() | Reset():
                message = position_message(item, self._state.event_log)
                return b"event: %b\nid: %b\ndata: %b\n\n" % (
                    message["type"].encode(),
                    message["cursor"].encode(),
                    orjson.dumps(message),
                )
            case None:
                return b": still here\n\n"


async def _wait_for_stop(stopping: asyncio.Event) -> None:
    await stopping.wait()
