"""Routes of log-in sessions, API keys and tickets."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.accounts.api_keys import MAX_KEYS
from service.accounts.schemas import KeyList, MadeKey, NewKey, SessionList, Ticket
from service.api import responses
from service.api.authentication import CurrentUser
from service.api.openapi import problems
from service.api.request_checks import RowId, json_body, no_query, whole_body
from service.api.state import State

router = APIRouter(prefix="/auth", tags=["sessions"])


@router.post(
    "/logout",
    summary="Log out",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(
        401, 403, 404, 413, details={404: "An API key has no session: `DELETE /auth/keys/{id}` revokes it."}
    ),
)
async def log_out(state: State, viewer: CurrentUser) -> Response:
    """End the session of this request.

    Its tokens become invalid on every process, and its WebSockets and event streams close.
    """
    await state.sessions.log_out(state.db, viewer)
    return Response(status_code=204)


@router.get(
    "/sessions",
    summary="List your log-in sessions",
    response_model=SessionList,
    dependencies=[no_query],
    responses=problems(401),
)
async def list_sessions(state: State, viewer: CurrentUser) -> Response:
    """List the account's active sessions, the newest first."""
    return responses.json(await state.sessions.list(state.db, viewer))


@router.delete(
    "/sessions/{session_id}",
    summary="End a log-in session",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413, details={404: "There is no such session."}),
)
async def end_session(state: State, viewer: CurrentUser, session_id: RowId) -> Response:
    """End one session of the account.

    Its tokens become invalid on every process, and its WebSockets and event streams close.
    """
    await state.sessions.end(state.db, viewer, session_id)
    return Response(status_code=204)


@router.post(
    "/keys",
    summary="Create an API key",
    status_code=201,
    response_model=MadeKey,
    dependencies=[no_query, json_body],
    responses=problems(
        *(401, 403, 409, 413),
        details={
            403: "Only a log-in session creates API keys; this request came with an API key.",
            409: f"An account has at most {MAX_KEYS} keys.",
        },
    ),
)
async def create_key(state: State, viewer: CurrentUser, new: NewKey) -> Response:
    """Create an API key for a program, and return it.

    The key works wherever an access token works. The service stores only its hash and cannot show it again. Only a
    log-in session creates keys. A request with an API key returns 403.
    """
    return responses.json(await state.api_keys.create(state.db, viewer, new), status=201)


@router.get(
    "/keys", summary="List your API keys", response_model=KeyList, dependencies=[no_query], responses=problems(401)
)
async def list_keys(state: State, viewer: CurrentUser) -> Response:
    """List the account's API keys, the newest first, with the time of the last use of each.

    The keys themselves are not included.
    """
    return responses.json(await state.api_keys.list(state.db, viewer))


@router.delete(
    "/keys/{key_id}",
    summary="Revoke an API key",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, whole_body],
    responses=problems(401, 403, 404, 413, details={404: "There is no such key."}),
)
async def revoke_key(state: State, viewer: CurrentUser, key_id: RowId) -> Response:
    """Revoke one API key of the account."""
    await state.api_keys.revoke(state.db, viewer, key_id)
    return Response(status_code=204)


@router.post(
    "/ticket",
    summary="Create a ticket for an event stream",
    response_model=Ticket,
    dependencies=[no_query, whole_body],
    responses=problems(401, 413),
)
async def create_ticket(state: State, viewer: CurrentUser) -> Response:
    """Create a ticket that authenticates one request to `/ws` or `/events` within 30 seconds.

    A browser cannot set headers on these requests, so it sends the ticket in the URL.
    """
    return responses.json(await state.tickets.create(state.db, viewer))
