"""Authentication: the user that the token or API key of a request stands for."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import HTTPConnection

from service.api.client_address import client_address
from service.api.state import AppState, state_of
from service.core.errors import ForbiddenError, ServiceError, UnauthorizedError, UnavailableError
from service.core.viewer import Viewer

READ_ONLY_KEY_PATHS = {"/auth/ticket"}
"""The paths that a read-only API key may request with another method than GET."""
IDENTITY = "service.identity"
"""Where a request's scope keeps what `identity_of` returns."""
_bearer = OAuth2PasswordBearer(
    "auth/login",
    scheme_name="Bearer",
    description="The access token of `POST /auth/login`, or an API key of `POST /auth/keys`.",
    auto_error=False,
)


async def identity_of(request: HTTPConnection) -> Viewer | ServiceError | None:
    """Return the user of a request, None without a credential, or the error of a credential that is not valid.

    It returns the error, because the rate limiter counts a request before the route refuses it. The first call verifies
    the credential, and later calls return the same.
    """
    if IDENTITY not in request.scope:
        request.scope[IDENTITY] = await _verify(state_of(request), credential_of(request))
    identity: Viewer | ServiceError | None = request.scope[IDENTITY]
    return identity


def credential_of(request: HTTPConnection) -> str | None:
    """Return the token or API key of a request: None without `Authorization`, empty if its scheme is not Bearer."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return None
    scheme, credential = get_authorization_scheme_param(authorization)
    return credential if scheme.lower() == "bearer" else ""


async def _verify(state: AppState, credential: str | None) -> Viewer | ServiceError | None:
    if credential is None:
        return None
    try:
        return await state.session_cache.authenticate(credential)
    except (UnauthorizedError, UnavailableError) as error:
        return error


async def _permitted_identity(request: HTTPConnection) -> Viewer | None:
    identity = await identity_of(request)
    if isinstance(identity, ServiceError):
        raise identity
    is_write = request.scope["method"] != "GET" and request.url.path not in READ_ONLY_KEY_PATHS
    if identity and identity.read_only and is_write:
        raise ForbiddenError("This API key may only read.")
    return identity


async def require_viewer(request: HTTPConnection) -> Viewer:
    """Return the user of a request.

    Raises: UnauthorizedError without a valid credential, ForbiddenError for a write with a read-only API key,
    UnavailableError if the database cannot verify the credential.
    """
    return await _current_user(await _permitted_identity(request))


async def _optional_user(request: Request, _token: Annotated[str | None, Depends(_bearer)]) -> Viewer | None:
    return await _permitted_identity(request)


async def _current_user(viewer: Annotated[Viewer | None, Depends(_optional_user)]) -> Viewer:
    if viewer is None:
        raise UnauthorizedError("A token is required: `Authorization: Bearer …`.")
    return viewer


async def _administrator(viewer: Annotated[Viewer, Depends(_current_user)]) -> Viewer:
    if not viewer.is_admin:
        raise ForbiddenError("Only administrators may do this.")
    return viewer


OptionalUser: TypeAlias = Annotated[Viewer | None, Depends(_optional_user)]
"""The authenticated user of a route, or None for a request without a credential; else as `require_viewer`."""
CurrentUser: TypeAlias = Annotated[Viewer, Depends(_current_user)]
"""The authenticated user of a route, as `require_viewer` returns it."""
Administrator: TypeAlias = Annotated[Viewer, Depends(_administrator)]
"""The authenticated user of a route, who is an administrator; others receive 403."""


async def address_of(request: HTTPConnection) -> str:
    """Return the client address that limits count a request under."""
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.getlist("x-forwarded-for"), state_of(request).limits.trusted_proxies)
