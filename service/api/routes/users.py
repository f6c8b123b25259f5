"""Routes of all accounts, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.accounts.schemas import AccountChange, Member, MemberPage, UserListParams
from service.api import responses
from service.api.authentication import Administrator
from service.api.openapi import PAGE, merge_patch, problems
from service.api.request_checks import RowId, each_once, json_body, no_query
from service.api.state import State

router = APIRouter(prefix="/users", tags=["administration"])
DETAILS = {
    403: "Only administrators may do this.",
    404: "There is no such account.",
    409: "The last active administrator must stay.",
}


@router.get(
    "",
    summary="List accounts",
    response_model=MemberPage,
    dependencies=[each_once],
    responses=PAGE | problems(401, 403, details=DETAILS),
)
async def list_users(
    state: State, _viewer: Administrator, request: Request, query: Annotated[UserListParams, Query()]
) -> Response:
    """List all accounts in the order of their usernames."""
    page = await state.users.list(state.db, query, cursors=state.cursors)
    return responses.json(page, headers=responses.next_link(request, page["next_cursor"]))


@router.get(
    "/{user_id}",
    summary="Read an account",
    response_model=Member,
    dependencies=[no_query],
    responses=problems(401, 403, 404, details=DETAILS),
)
async def get_user(state: State, _viewer: Administrator, user_id: RowId) -> Response:
    """Return one account."""
    return responses.json(await state.users.get(state.db, user_id))


@router.patch(
    "/{user_id}",
    summary="Change an account",
    response_model=Member,
    dependencies=[no_query, json_body],
    openapi_extra=merge_patch("AccountChange"),
    responses=problems(401, 403, 404, 409, 413, details=DETAILS),
)
async def change_user(state: State, viewer: Administrator, user_id: RowId, change: AccountChange) -> Response:
    """Change an account's role, deactivate it, or reactivate it.

    The change applies from the account's next request. To demote or deactivate the last active administrator returns
    409.
    """
    account = await state.users.change(state.db, viewer, user_id, change)
    state.session_cache.forget(user_id)
    return responses.json(account)
