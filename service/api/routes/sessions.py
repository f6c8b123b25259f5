"""Routes of what stands for a log-in: sessions, tickets, and API keys."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.accounts.schemas import KeyList, MadeKey, NewKey, SessionList, Ticket
from service.api import responses
from service.api.authentication import CurrentUser
from service.api.openapi import problems
from service.api.request_checks import RowId, json_body, no_query, whole_body
from service.api.state import State

router = APIRouter(prefix="/auth", tags=["sessions"])


@router.post(
    "/logout",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413),
)
async def log_out(state: State, viewer: CurrentUser) -> Response:
    """End the session that asks: its tokens are good no more, anywhere, and its sockets are closed."""
    await state.sessions.log_out(state.db, viewer)
    return Response(status_code=204)


@router.get("/sessions", response_model=SessionList, dependencies=[no_query], responses=problems(401))
async def list_sessions(state: State, viewer: CurrentUser) -> Response:
    """List one's own sessions, the newest first."""
    return responses.json(await state.sessions.list(state.db, viewer))


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413),
)
async def end_session(state: State, viewer: CurrentUser, session_id: RowId) -> Response:
    """End one of one's own sessions."""
    await state.sessions.end(state.db, viewer, session_id)
    return Response(status_code=204)


@router.post(
    "/keys",
    status_code=201,
    response_model=MadeKey,
    dependencies=[no_query, json_body],
    responses=problems(401, 403, 409, 413),
)
async def make_key(state: State, viewer: CurrentUser, new: NewKey) -> Response:
    """Make an API key for a machine: it goes where a token goes, and is shown this once.

    Only a log-in session creates keys: 403 for a request that comes with a key."""
    return responses.json(await state.api_keys.create(state.db, viewer, new), status=201)


@router.get("/keys", response_model=KeyList, dependencies=[no_query], responses=problems(401))
async def list_keys(state: State, viewer: CurrentUser) -> Response:
    """List one's own API keys, the newest first, with when each was last used and without what they are."""
    return responses.json(await state.api_keys.list(state.db, viewer))


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413),
)
async def end_key(state: State, viewer: CurrentUser, key_id: RowId) -> Response:
    """Revoke one of one's own API keys."""
    await state.api_keys.revoke(state.db, viewer, key_id)
    return Response(status_code=204)


@router.post("/ticket", response_model=Ticket, dependencies=[no_query, whole_body], responses=problems(401, 413))
async def ticket(state: State, viewer: CurrentUser) -> Response:
    """Give a ticket for `/ws` or `/events`, where a browser can send no header: good once, for 30 seconds."""
    return responses.json(await state.tickets.create(state.db, viewer))
