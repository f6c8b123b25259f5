"""Events over HTTP: as Server-Sent Events, and as pages for who asks again and again."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from orjson import Fragment
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from service.core.errors import ForbiddenError, UnauthorizedError, UnavailableError
from service.core.validation import AS_DIGITS, Input, Text
from service.core.viewer import Viewer
from service.events.event import Event
from service.events.hub import Item, Ready, Reset
from service.events.log import Page
from service.events.position import NOWHERE
from service.events.subscriber import EndedError, Subscriber
from service.tasks.history import HistoryEvent
from service.web import replies
from service.web.deps import Anyone, In, Rooms, each_once
from service.web.documents import problems
from service.web.limits import address_of
from service.web.streams import Items, first_of, greeting, is_ours, left, wire_of

STREAM = "text/event-stream"
PAGE_BYTES = 4 * 1024 * 1024
LONGEST_CURSOR = 16_384
AS_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {STREAM: {"schema": {"type": "string"}}}}}

router = APIRouter(tags=["events"])


class TaskEvent(HistoryEvent):
    """One committed change of a task, as listeners hear of it."""

    cursor: Annotated[str, Field(description="Going on from here gives every later event exactly once.")]


class EventPage(BaseModel):
    """A page of events."""

    items: list[TaskEvent]
    cursor: Annotated[str, Field(description="The next page's `since`.")]
    reset: Annotated[bool, Field(description="The cursor is of no use any more: read your lists again.")]


class EventQuery(Input):
    """Where to go on from."""

    since: Annotated[
        Text | None, Field(max_length=LONGEST_CURSOR, description="A cursor; without it: what comes from now on.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Of a page."), AS_DIGITS] = 100
    ticket: Annotated[Text | None, Field(max_length=200, description="Of `POST /auth/ticket`, for browsers.")] = None


@router.get(
    "/events",
    response_model=EventPage,
    dependencies=[each_once],
    responses=AS_STREAM | problems(401, 403),
)
async def events(
    rooms: In,
    request: Request,
    viewer: Anyone,
    query: Annotated[EventQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(max_length=LONGEST_CURSOR, description="Of a stream that is taken up again: in place of `since`."),
    ] = None,
) -> Response:
    """Return the events that the caller may see: as a stream for `Accept: text/event-stream`, else as a page.

    A user has at most `MAX_SUBSCRIPTIONS_PER_USER` streams and WebSockets on a process (429), an address half of what
    the process has; 503 when it has no more."""
    if not is_ours(request.headers.get("origin"), request.headers.get("host", ""), rooms.origins):
        raise ForbiddenError("This origin may not listen: CORS_ORIGINS names those that may.")
    if viewer is None:
        if query.ticket is None:
            raise UnauthorizedError("A token is needed: `Authorization: Bearer …`, or a ticket.")
        viewer = await rooms.logins.use_ticket(rooms.db, query.ticket)
    if STREAM in request.headers.get("accept", ""):
        since = last_event_id if last_event_id is not None else query.since
        return await _stream(rooms, viewer, since, address=await address_of(request))
    return await _page(rooms, viewer, query)


async def _page(rooms: Rooms, viewer: Viewer, query: EventQuery) -> Response:
    if query.since is None:
        here = await rooms.feed.here(rooms.db)
        return replies.json({"items": [], "cursor": rooms.feed.cursor(here), "reset": False})
    page = Page([], rooms.feed.position(query.since) or NOWHERE, more=True)
    items: list[Fragment] = []
    while page.more and not items:  # what is left of a batch may be nothing
        page = await rooms.feed.page(rooms.db, page.position, viewer=viewer, rows=query.limit, size=PAGE_BYTES)
        items = [Fragment(event.body) for event in page.events]
    return replies.json({"items": items, "cursor": rooms.feed.cursor(page.position), "reset": page.reset})


async def _stream(rooms: Rooms, viewer: Viewer, since: str | None, *, address: str) -> Response:
    feed = rooms.feed
    position = await feed.here(rooms.db) if since is None else feed.position(since) or NOWHERE
    return _EventStream(rooms, Subscriber(viewer, position, viewer.expires_at), address=address)


class _EventStream(Response):
    """Server-Sent Events (WHATWG HTML, section 9.2): ends with the token, the client or the server."""

    media_type = STREAM

    def __init__(self, rooms: Rooms, subscriber: Subscriber, *, address: str) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._rooms = rooms
        self._subscriber = subscriber
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscriptions = self._rooms.subscriptions
        with subscriptions.from_address(self._address), subscriptions.of_user(self._subscriber.viewer.id):
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope.get(replies.HEAD):  # a stream would keep the next request on this connection waiting
            await send({"type": "http.response.body", "body": b""})
            return
        wire = wire_of(scope)
        with self._rooms.hub.subscribed(self._subscriber) as items:
            watched = [self._send(items, send), left(receive)]
            if wire:
                watched.append(_stopping(wire.stopping))
            with suppress(EndedError, UnauthorizedError, UnavailableError):
                self._subscriber.viewer = await self._rooms.logins.sessions.present(self._subscriber.viewer)
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
                said = greeting(item, self._rooms.feed)
                return b"event: %b\nid: %b\ndata: %b\n\n" % (
                    said["type"].encode(),
                    said["cursor"].encode(),
                    orjson.dumps(said),
                )
            case None:
                return b": still here\n\n"


async def _stopping(stopping: asyncio.Event) -> None:
    await stopping.wait()
