"""Events over HTTP: as Server-Sent Events, and as pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from orjson import Fragment
from pydantic import BaseModel, Field

from service.api import responses
from service.api.authentication import OptionalUser, address_of
from service.api.openapi import problems
from service.api.request_checks import each_once
from service.api.state import AppState, State
from service.api.streaming.sse import STREAM, _EventStream
from service.api.streaming.subscriptions import is_ours
from service.core.errors import ForbiddenError, UnauthorizedError
from service.core.validation import AS_DIGITS, Input, Text
from service.core.viewer import Viewer
from service.events.log import Page
from service.events.position import NOWHERE
from service.events.subscriber import Subscriber
from service.tasks.history import HistoryEvent

PAGE_BYTES = 4 * 1024 * 1024
MAX_CURSOR_CHARACTERS = 16_384
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
        Text | None,
        Field(max_length=MAX_CURSOR_CHARACTERS, description="A cursor; without it: what comes from now on."),
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
    state: State,
    request: Request,
    viewer: OptionalUser,
    query: Annotated[EventQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=MAX_CURSOR_CHARACTERS, description="Of a stream that is taken up again: in place of `since`."
        ),
    ] = None,
) -> Response:
    """Return the events that the caller may see: as a stream for `Accept: text/event-stream`, else as a page.

    A user has at most `MAX_SUBSCRIPTIONS_PER_USER` streams and WebSockets on a process (429), an address half of what
    the process has; 503 when it has no more."""
    if not is_ours(request.headers.get("origin"), request.headers.get("host", ""), state.origins):
        raise ForbiddenError("This origin may not listen: CORS_ORIGINS names those that may.")
    if viewer is None:
        if query.ticket is None:
            raise UnauthorizedError("A token is needed: `Authorization: Bearer …`, or a ticket.")
        viewer = await state.tickets.use(state.db, query.ticket)
    if STREAM in request.headers.get("accept", ""):
        since = last_event_id if last_event_id is not None else query.since
        return await _stream(state, viewer, since, address=await address_of(request))
    return await _page(state, viewer, query)


async def _page(state: AppState, viewer: Viewer, query: EventQuery) -> Response:
    if query.since is None:
        here = await state.event_log.here(state.db)
        return responses.json({"items": [], "cursor": state.event_log.cursor(here), "reset": False})
    page = Page([], state.event_log.position(query.since) or NOWHERE, more=True)
    items: list[Fragment] = []
    while page.more and not items:  # what is left of a batch may be nothing
        page = await state.event_log.page(state.db, page.position, viewer=viewer, rows=query.limit, size=PAGE_BYTES)
        items = [Fragment(event.body) for event in page.events]
    return responses.json({"items": items, "cursor": state.event_log.cursor(page.position), "reset": page.reset})


async def _stream(state: AppState, viewer: Viewer, since: str | None, *, address: str) -> Response:
    event_log = state.event_log
    position = await event_log.here(state.db) if since is None else event_log.position(since) or NOWHERE
    return _EventStream(state, Subscriber(viewer, position, viewer.expires_at), address=address)
