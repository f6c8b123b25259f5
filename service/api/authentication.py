"""Who sends a request: the viewer behind its token or API key."""

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

READING = {"/auth/ticket"}  # what a key that may only read may ask for by another method
IDENTITY = "service.identity"  # where a request's scope keeps it
_bearer = OAuth2PasswordBearer(
    "auth/login",
    scheme_name="Bearer",
    description="The access token of `POST /auth/login`, or an API key of `POST /auth/keys`.",
    auto_error=False,
)


async def identity_of(request: HTTPConnection) -> Viewer | ServiceError | None:
    """Give whom the token speaks for, None without one, and what is wrong with it: it is counted before it is refused.

    It is verified once for each request, by whoever asks first.
    """
    if IDENTITY not in request.scope:
        request.scope[IDENTITY] = await _identity(state_of(request), credential_of(request))
    identity: Viewer | ServiceError | None = request.scope[IDENTITY]
    return identity


def credential_of(request: HTTPConnection) -> str | None:
    """Give the token or key of a request; None where it has no Authorization, empty where that is something else."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return None
    scheme, credential = get_authorization_scheme_param(authorization)
    return credential if scheme.lower() == "bearer" else ""


async def _identity(state: AppState, credential: str | None) -> Viewer | ServiceError | None:
    if credential is None:
        return None
    try:
        return await state.session_cache.authenticate(credential)
    except (UnauthorizedError, UnavailableError) as error:
        return error


async def _optional_user(request: Request, _token: Annotated[str | None, Depends(_bearer)]) -> Viewer | None:
    return await _optional_user_of(request)


async def _optional_user_of(request: HTTPConnection) -> Viewer | None:
    identity = await identity_of(request)
    if isinstance(identity, ServiceError):
        raise identity
    if identity and identity.read_only and request.scope["method"] != "GET" and request.url.path not in READING:
        raise ForbiddenError("This API key may only read.")
    return identity


async def require_viewer(request: HTTPConnection) -> Viewer:
    """Give who may ask for this; ServiceError where the token is none, not good, or for reading alone."""
    return await _viewer(await _optional_user_of(request))


async def _viewer(viewer: Annotated[Viewer | None, Depends(_optional_user)]) -> Viewer:
    if viewer is None:
        raise UnauthorizedError("A token is needed: `Authorization: Bearer …`.")
    return viewer


async def _administrator(viewer: Annotated[Viewer, Depends(_viewer)]) -> Viewer:
    if not viewer.is_admin:
        raise ForbiddenError("This is for administrators.")
    return viewer


Administrator: TypeAlias = Annotated[Viewer, Depends(_administrator)]
OptionalUser: TypeAlias = Annotated[Viewer | None, Depends(_optional_user)]
CurrentUser: TypeAlias = Annotated[Viewer, Depends(_viewer)]


async def address_of(request: HTTPConnection) -> str:
    """Give the address that a request is counted under."""
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.getlist("x-forwarded-for"), state_of(request).limits.trusted_proxies)
