"""Routes of log-in sessions, API keys and tickets."""

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
    """End the session of this request.

    Its tokens become invalid on every process, and its WebSockets and event streams close.
    """
    await state.sessions.log_out(state.db, viewer)
    return Response(status_code=204)


@router.get("/sessions", response_model=SessionList, dependencies=[no_query], responses=problems(401))
async def list_sessions(state: State, viewer: CurrentUser) -> Response:
    """List the account's active sessions, the newest first."""
    return responses.json(await state.sessions.list(state.db, viewer))


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413),
)
async def end_session(state: State, viewer: CurrentUser, session_id: RowId) -> Response:
    """End one session of the account.

    Its tokens become invalid on every process, and its WebSockets and event streams close.
    """
    await state.sessions.end(state.db, viewer, session_id)
    return Response(status_code=204)


@router.post(
    "/keys",
    status_code=201,
    response_model=MadeKey,
    summary="Create Key",
    dependencies=[no_query, json_body],
    responses=problems(401, 403, 409, 413),
)
async def make_key(state: State, viewer: CurrentUser, new: NewKey) -> Response:
    """Create an API key for a machine, and return it.

    The key works wherever an access token does. The service stores only its hash and cannot show it again. Only a
    log-in session creates keys: a request with an API key returns 403.
    """
    return responses.json(await state.api_keys.create(state.db, viewer, new), status=201)


@router.get("/keys", response_model=KeyList, dependencies=[no_query], responses=problems(401))
async def list_keys(state: State, viewer: CurrentUser) -> Response:
    """List the account's API keys, the newest first, with the time of the last use of each.

    The keys themselves are not included.
    """
    return responses.json(await state.api_keys.list(state.db, viewer))


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    summary="Revoke Key",
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413),
)
async def end_key(state: State, viewer: CurrentUser, key_id: RowId) -> Response:
    """Revoke one API key of the account."""
    await state.api_keys.revoke(state.db, viewer, key_id)
    return Response(status_code=204)


@router.post(
    "/ticket",
    response_model=Ticket,
    summary="Create Ticket",
    dependencies=[no_query, whole_body],
    responses=problems(401, 413),
)
async def ticket(state: State, viewer: CurrentUser) -> Response:
    """Create a ticket that authenticates one request to `/ws` or `/events` within 30 seconds.

    A browser cannot set headers on these requests, so it sends the ticket in the URL.
    """
    return responses.json(await state.tickets.create(state.db, viewer))
