"""Routes of events over HTTP: pages, and streams of Server-Sent Events."""

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
from service.api.streaming.sse import EVENT_STREAM, EventStream
from service.core.errors import ForbiddenError, UnauthorizedError
from service.core.validation import AS_DIGITS, Input, Text
from service.core.viewer import Viewer
from service.events.log import Page
from service.events.position import NO_POSITION
from service.events.subscriber import Subscriber
from service.tasks.history import HistoryEvent

MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_CURSOR_CHARACTERS = 16_384
EXAMPLE_STREAM = 'id: WzQyXQ…\ndata: {"id": 42, "type": "task.created", …}\n\n'
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": EXAMPLE_STREAM}}}
}
FOREIGN_ORIGIN = "This origin may not subscribe: CORS_ORIGINS names those that may."
NO_CREDENTIAL = "A token is required: `Authorization: Bearer …`, or a ticket."
router = APIRouter(tags=["events"])


class TaskEvent(HistoryEvent):
    """One committed change of a task, as subscribers receive it."""

    cursor: Annotated[
        str,
        Field(
            description="The position after this event. Reading from it returns every later event exactly once.",
            examples=["WzQyXQ…"],
        ),
    ]


class EventPage(BaseModel):
    """A page of events."""

    items: list[TaskEvent]
    cursor: Annotated[str, Field(description="The `since` of the next page.", examples=["WzQyXQ…"])]
    reset: Annotated[
        bool,
        Field(
            description="True if `since` is not usable, so that events may be missing. Then read your lists again.",
            examples=[False],
        ),
    ]


class EventQuery(Input):
    """The position to read from, the size of a page, and a ticket."""

    since: Annotated[
        Text | None,
        Field(
            max_length=MAX_CURSOR_CHARACTERS,
            description="The cursor to continue from. Without one, events start from now.",
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="The maximum number of events on a page."), AS_DIGITS] = 100
    ticket: Annotated[
        Text | None,
        Field(max_length=200, description="A ticket of `POST /auth/ticket`, for browsers, which cannot send a header."),
    ] = None


@router.get(
    "/events",
    summary="Read or stream events",
    response_model=EventPage,
    dependencies=[each_once],
    responses=STREAM_RESPONSES | problems(401, 403, details={401: NO_CREDENTIAL, 403: FOREIGN_ORIGIN}),
)
async def read_events(
    state: State,
    request: Request,
    viewer: OptionalUser,
    query: Annotated[EventQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=MAX_CURSOR_CHARACTERS,
            description="The last `id` of an interrupted stream, which replaces `since`. EventSource sends it.",
        ),
    ] = None,
) -> Response:
    """Return the events that the caller may see, as a page or as a stream.

    With `Accept: text/event-stream` the response is a stream of Server-Sent Events, else it is a page. A user may have
    at most `MAX_SUBSCRIPTIONS_PER_USER` streams and WebSockets open on one process, and one address half of the
    process's slots. Beyond that the request returns 429, and 503 if the process has no slot left.
    """
    if not state.origins.allows(request):
        raise ForbiddenError(FOREIGN_ORIGIN)
    viewer = viewer or await _use_ticket(state, query.ticket)
    if EVENT_STREAM in request.headers.get("accept", ""):
        since = last_event_id if last_event_id is not None else query.since
        return await _stream(state, viewer, since, address=await address_of(request))
    return await _page(state, viewer, query)


async def _use_ticket(state: AppState, ticket: str | None) -> Viewer:
    if ticket is None:
        raise UnauthorizedError(NO_CREDENTIAL)
    return await state.tickets.use(state.db, ticket)


async def _page(state: AppState, viewer: Viewer, query: EventQuery) -> Response:
    event_log = state.event_log
    if query.since is None:
        position = await event_log.current_position(state.db)
        return responses.json({"items": [], "cursor": event_log.cursor(position), "reset": False})
    page = Page([], event_log.position(query.since) or NO_POSITION, more=True)
    items: list[Fragment] = []
    while page.more and not items:  # the rest of a batch may contain no event that the viewer may see
        page = await event_log.page(
            state.db, page.position, viewer=viewer, max_rows=query.limit, max_bytes=MAX_PAGE_BYTES
        )
        items = [Fragment(event.body) for event in page.events]
    return responses.json({"items": items, "cursor": event_log.cursor(page.position), "reset": page.reset})


async def _stream(state: AppState, viewer: Viewer, since: str | None, *, address: str) -> Response:
    if since is None:
        position = await state.event_log.current_position(state.db)
    else:
        position = state.event_log.position(since) or NO_POSITION
    return EventStream(state, Subscriber(viewer, position, viewer.expires_at), address=address)
