"""Authentication: the user that the token or API key of a request stands for."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from service.api.client_address import client_address
from service.api.headers import headers_of
from service.api.state import state_of
from service.core.errors import ForbiddenError, ServiceError, UnauthorizedError, UnavailableError
from service.core.viewer import Viewer

READ_ONLY_KEY_PATHS = {"/auth/ticket"}
"""The paths that a read-only API key may request with another method than GET."""
IDENTITY = "service.identity"
"""Where a request's scope keeps what `identity_of` returns."""
_bearer = OAuth2PasswordBearer(
    "auth/login",
    scheme_name="Bearer",
    description="A username and a password, which `POST /auth/login` exchanges for an access token.",
    auto_error=False,
)
_api_key = HTTPBearer(
    scheme_name="ApiKey",
    description="An API key of `POST /auth/keys`, or an access token: `Authorization: Bearer …`.",
    auto_error=False,
)


async def identity_of(request: HTTPConnection) -> Viewer | ServiceError | None:
    """Return the user of a request, None without a credential, or the error of a credential that is not valid.

    It returns the error, because the rate limiter counts a request before the route refuses it. The first call verifies
    the credential and puts the identity into the scope, where the endpoint reads it; later calls return the same.
    """
    scope = request.scope
    if IDENTITY not in scope:
        credential = credential_of(request)
        try:
            scope[IDENTITY] = None
            if credential is not None:
                scope[IDENTITY] = await state_of(request).session_cache.authenticate(credential)
        except (UnauthorizedError, UnavailableError) as error:
            scope[IDENTITY] = error
    identity: Viewer | ServiceError | None = scope[IDENTITY]
    return identity


def credential_of(request: HTTPConnection) -> str | None:
    """Return the token or API key of a request: None without `Authorization`, empty if its scheme is not Bearer."""
    authorization = headers_of(request.scope).get(b"authorization")
    if authorization is None:
        return None
    scheme, _, credential = authorization.decode("latin-1").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _permitted_identity(request: HTTPConnection) -> Viewer | None:
    scope = request.scope
    identity: Viewer | ServiceError | None = scope[IDENTITY]
    if isinstance(identity, ServiceError):
        raise identity
    if identity and identity.read_only and scope["method"] != "GET" and scope["path"] not in READ_ONLY_KEY_PATHS:
        raise ForbiddenError("This API key may only read.")
    return identity


def require_viewer(request: HTTPConnection) -> Viewer:
    """Return the user of a request that the pipeline has authenticated.

    Raises: UnauthorizedError without a valid credential, ForbiddenError for a write with a read-only API key,
    UnavailableError if the database cannot verify the credential.
    """
    viewer = _permitted_identity(request)
    if viewer is None:
        raise UnauthorizedError("A token is required: `Authorization: Bearer …`.")
    return viewer


BearerToken: TypeAlias = Annotated[str | None, Depends(_bearer)]
"""Documents that a route accepts an access token; `endpoint` never runs it."""
ApiKey: TypeAlias = Annotated[HTTPAuthorizationCredentials | None, Depends(_api_key)]
"""Documents that a route accepts an API key; `endpoint` never runs it."""


def _optional_user(request: Request, _token: BearerToken, _key: ApiKey) -> Viewer | None:
    return _permitted_identity(request)


def _current_user(request: Request, _token: BearerToken, _key: ApiKey) -> Viewer:
    return require_viewer(request)


def _administrator(request: Request, _token: BearerToken, _key: ApiKey) -> Viewer:
    viewer = require_viewer(request)
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
