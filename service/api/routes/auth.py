"""Routes of the own account: registration, log-in, token refresh, and the password."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from service.accounts.schemas import Account, Credentials, PasswordChange, Refresh, Registration, Token
from service.api import json_text, responses
from service.api.authentication import CurrentUser, OptionalUser
from service.api.openapi import LOCATION, problems
from service.api.pipeline.rate_limit import attempt_of
from service.api.problems import NOT_JSON
from service.api.request_checks import JSON, json_body, media_type, no_query
from service.api.state import State
from service.api.streaming.subscriptions import while_connected
from service.core.validation import MAX_FIELDS

FORM = "application/x-www-form-urlencoded"
# An OAuth 2 client, such as Swagger UI's Authorize, sends these with the username and password. They have no effect.
OAUTH_FIELDS = frozenset({"grant_type", "scope", "client_id", "client_secret"})
WRONG_LOGIN_TYPE = f"The Content-Type of the body should be application/json or {FORM}."
LOGIN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Credentials"}},
        },
    }
}

router = APIRouter(prefix="/auth", tags=["accounts"])


async def _read_credentials(request: Request) -> Credentials:
    content_type = media_type(request)
    if content_type in JSON:
        fields = await _parse_json(request)
    elif content_type == FORM:
        form = [field for field in await _parse_form(request) if field[0] not in OAUTH_FIELDS]
        fields = dict(form)
        if len(fields) < len(form):
            names = [name for name, _ in form]
            raise json_text.duplicates([("body", name) for name in fields if names.count(name) > 1])
    else:
        raise HTTPException(415, WRONG_LOGIN_TYPE)
    try:
        return Credentials.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors()]) from None


async def _parse_form(request: Request) -> list[tuple[str, str]]:
    """Parse a form as UTF-8; Starlette's own parser decodes bytes that are not percent-encoded as Latin-1."""
    try:
        form = (await request.body()).decode()
        return parse_qsl(form, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400, "The body is not a form.") from None


async def _parse_json(request: Request) -> Any:
    try:
        return json_text.parse(await request.body())
    except RequestValidationError:
        raise
    except (ValueError, RecursionError):
        raise HTTPException(400, NOT_JSON) from None


@router.post(
    "/register",
    summary="Register an account",
    status_code=201,
    response_model=Account,
    dependencies=[no_query, json_body],
    responses=LOCATION
    | problems(
        *(401, 403, 409, 413),
        details={
            401: "The token is not valid.",
            403: "Only an administrator may register an administrator.",
            409: "This username is taken.",
        },
    ),
    openapi_extra={"security": [{}]},
)
async def register(request: Request, state: State, viewer: OptionalUser, new: Registration) -> Response:
    """Create an account.

    Everyone may register a user, unless the service is set up so that only administrators may. Only an administrator
    may register an administrator.
    """
    registering = state.users.register(state.db, viewer, new, payer=await attempt_of(request))
    row = await while_connected(request.receive, registering)
    return responses.json(row, status=201, headers={"Location": f"/users/{row['id']}" if viewer else "/auth/me"})


@router.post(
    "/login",
    summary="Log in",
    response_model=Token,
    dependencies=[no_query],
    openapi_extra=LOGIN_BODY,
    responses=problems(401, 413, details={401: "Wrong username or password.", 415: WRONG_LOGIN_TYPE}),
)
async def log_in(request: Request, state: State) -> Response:
    """Return an access token and a refresh token for a username and a password.

    The route also accepts the form of an OAuth 2 password request, which Swagger UI's Authorize sends.
    """
    credentials = await _read_credentials(request)
    attempt = await attempt_of(request, account=credentials.username)
    user_agent = request.headers.get("user-agent")
    logging_in = state.sessions.log_in(state.db, credentials, payer=attempt, user_agent=user_agent)
    token = await while_connected(request.receive, logging_in)
    if login_limit := state.limits.logins:
        await login_limit.remember(credentials.username, attempt.address)
    return responses.json(token)


@router.get(
    "/me", summary="Read your own account", response_model=Account, dependencies=[no_query], responses=problems(401)
)
async def get_current_account(state: State, viewer: CurrentUser) -> Response:
    """Return the account that the token or API key belongs to."""
    return responses.json(await state.users.get_own(state.db, viewer))


@router.post(
    "/refresh",
    summary="Refresh the tokens",
    response_model=Token,
    dependencies=[no_query, json_body],
    responses=problems(401, 413, details={401: "The refresh token is not valid."}),
)
async def refresh_tokens(state: State, token: Refresh) -> Response:
    """Exchange a refresh token for a new access token and the next refresh token.

    A refresh token is valid once. For ten more seconds it returns the same successor, so that parallel requests of one
    client succeed. If it is used later, two clients have it, and its session ends.
    """
    return responses.json(await state.sessions.refresh(state.db, token.refresh_token))


@router.put(
    "/password",
    summary="Change your password",
    status_code=204,
    response_class=Response,
    dependencies=[no_query, json_body],
    responses=problems(401, 403, 409, 413, details={409: "Another request has changed the password."}),
)
async def change_password(request: Request, state: State, viewer: CurrentUser, change: PasswordChange) -> Response:
    """Change your password, and end all other sessions of the account.

    The request counts as two log-ins towards the log-in limits of the account and of the client address.
    """
    account = await state.users.get_own(state.db, viewer)
    attempt = await attempt_of(request, account=account["username"])
    changing = state.users.change_password(state.db, viewer, change, payer=attempt)
    await while_connected(request.receive, changing)
    state.session_cache.forget(viewer.id)
    return Response(status_code=204)
