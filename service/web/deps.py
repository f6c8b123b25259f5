"""What handlers ask for: the rooms, the viewer, the entity tags of a precondition; and what every route refuses."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from service.accounts.sessions import Logins
from service.accounts.users import Accounts
from service.attachments.operations import Attachments
from service.connections import SubscriptionLimits
from service.core.concurrency import Turns
from service.core.errors import ForbiddenError, ServiceError, UnauthorizedError, UnavailableError
from service.core.pagination import Cursors
from service.core.redis import RedisClient
from service.core.validation import Id
from service.core.viewer import Viewer
from service.db.pool import Database
from service.events.hub import Hub
from service.events.listener import Listener
from service.events.log import Feed
from service.ratelimit.login_limiter import Limits
from service.weather.client import Weather

LARGEST_BODY = 1_000_000
LARGEST_BODIES = {("POST", "/tasks/bulk"): 16_000_000}  # of who is known
UPLOAD = re.compile(r"/tasks/[0-9]+/attachments", re.ASCII)  # of who is known: the largest attachment, and
UPLOAD_FRAME = 64 * 1024  # what a client may say around it
MOST_VALUES = 50_000  # of a body; a thousand tasks with all of their fields are 14,000
READING = {"/auth/ticket"}  # what a key that may only read may ask for by another method
IDENTITY = "service.identity"  # where a request's scope keeps it
REPEATABLE = {"status"}  # parameters of a query
JSON = frozenset({"application/json"})
MERGE_PATCH = JSON | {"application/merge-patch+json"}
# RFC 9110, section 8.8.3.
ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# A list may have elements that are empty (section 5.6.1).
ENTITY_TAGS = re.compile(rf"([ \t]*,)*[ \t]*{ENTITY_TAG.pattern}([ \t]*,([ \t]*{ENTITY_TAG.pattern})?)*")
TAGS = WithJsonSchema({"type": "string", "examples": ['"1"']})  # a list to us, as a header may be there more than once
VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Rooms:
    """What a request needs of the process; made by the lifespan."""

    db: Database
    bulk: Database
    reports: Database
    exports: Turns
    bulks: Turns
    searches: Turns
    accounts: Accounts
    logins: Logins
    cursors: Cursors
    weather: Weather
    attachments: Attachments
    limits: Limits
    subscriptions: SubscriptionLimits
    redis: RedisClient | None
    feed: Feed
    hub: Hub
    listener: Listener
    origins: tuple[str, ...]


def rooms_of(request: HTTPConnection) -> Rooms:
    """Give the rooms of the application that a request is for."""
    rooms: Rooms = request.app.state.rooms
    return rooms


async def _rooms(request: Request) -> Rooms:
    return rooms_of(request)


In: TypeAlias = Annotated[Rooms, Depends(_rooms)]

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
        request.scope[IDENTITY] = await _identity(rooms_of(request), credential_of(request))
    identity: Viewer | ServiceError | None = request.scope[IDENTITY]
    return identity


def credential_of(request: HTTPConnection) -> str | None:
    """Give the token or key of a request; None where it has no Authorization, empty where that is something else."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return None
    scheme, credential = get_authorization_scheme_param(authorization)
    return credential if scheme.lower() == "bearer" else ""


async def _identity(rooms: Rooms, credential: str | None) -> Viewer | ServiceError | None:
    if credential is None:
        return None
    try:
        return await rooms.logins.sessions.viewer(credential)
    except (UnauthorizedError, UnavailableError) as error:
        return error


async def _anyone(request: Request, _token: Annotated[str | None, Depends(_bearer)]) -> Viewer | None:
    return await _anyone_of(request)


async def _anyone_of(request: HTTPConnection) -> Viewer | None:
    identity = await identity_of(request)
    if isinstance(identity, ServiceError):
        raise identity
    if identity and identity.read_only and request.scope["method"] != "GET" and request.url.path not in READING:
        raise ForbiddenError("This API key may only read.")
    return identity


async def viewer_of(request: HTTPConnection) -> Viewer:
    """Give who may ask for this; ServiceError where the token is none, not good, or for reading alone."""
    return await _viewer(await _anyone_of(request))


async def _viewer(viewer: Annotated[Viewer | None, Depends(_anyone)]) -> Viewer:
    if viewer is None:
        raise UnauthorizedError("A token is needed: `Authorization: Bearer …`.")
    return viewer


async def _administrator(viewer: Annotated[Viewer, Depends(_viewer)]) -> Viewer:
    if not viewer.is_admin:
        raise ForbiddenError("This is for administrators.")
    return viewer


Administrator: TypeAlias = Annotated[Viewer, Depends(_administrator)]
Anyone: TypeAlias = Annotated[Viewer | None, Depends(_anyone)]
Known: TypeAlias = Annotated[Viewer, Depends(_viewer)]
RowId: TypeAlias = Annotated[Id, Path(description="As the service has given it.", examples=[1])]


async def _no_query(request: Request) -> None:
    unknown = [{"type": "extra_forbidden", "loc": ("query", name), "msg": ""} for name in request.query_params]
    if unknown:
        raise RequestValidationError(unknown)


async def _each_once(request: Request) -> None:
    given = Counter(name for name, _ in request.query_params.multi_items() if name not in REPEATABLE)
    repeated = [
        {"type": "value_error", "loc": ("query", name), "msg": "is there more than once"}
        for name, times in given.items()
        if times > 1
    ]
    if repeated:
        raise RequestValidationError(repeated)


def media_type(request: HTTPConnection) -> str:
    """Give the body's media type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def has_body(request: HTTPConnection) -> bool:
    """Say whether a body comes with the request, or may come."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _json_body(request: Request) -> None:
    if has_body(request) and media_type(request) not in (MERGE_PATCH if request.method == "PATCH" else JSON):
        merge_patch = " or application/merge-patch+json" if request.method == "PATCH" else ""
        raise HTTPException(415, f"The body takes Content-Type: application/json{merge_patch}.")


async def _whole_body(request: Request) -> None:
    await request.body()


no_query = Depends(_no_query)
each_once = Depends(_each_once)  # of two values a client would not know which one counts
json_body = Depends(_json_body)
# For a route that takes no body and changes something: the limit speaks only where the body is read, else too late.
whole_body = Depends(_whole_body)


def _tags(lines: list[str]) -> list[tuple[str, str]] | None:
    """Give (weak, opaque part) of each tag, None for `*`; what is no list of tags names none."""
    text = ",".join(lines).strip()
    if text == "*":
        return None
    return ENTITY_TAG.findall(text) if ENTITY_TAGS.fullmatch(text) else []


async def _if_match(
    if_match: Annotated[
        list[str] | None, TAGS, Header(description="Entity tags; 412 where the task has another.")
    ] = None,
    if_none_match: Annotated[
        list[str] | None,
        TAGS,
        Header(description="`*`: 412 where the task is there (RFC 9110, 13.1.2). Tags are not looked at."),
    ] = None,
) -> list[int] | None:
    if if_none_match and _tags(if_none_match) is None:
        return []
    tags = _tags(if_match) if if_match else None
    # RFC 9110, section 13.1.1: compared strongly, so that a weak tag never matches.
    return None if tags is None else [int(tag) for weak, tag in tags if not weak and VERSION.fullmatch(tag)]


Versions: TypeAlias = Annotated[list[int] | None, Depends(_if_match)]
"""The versions that `If-Match` expects, none for `If-None-Match: *`; None where any will do."""


async def _if_none_match(
    if_none_match: Annotated[
        list[str] | None, TAGS, Header(description="Entity tags; 304 where it has one of them.")
    ] = None,
) -> list[str] | None:
    tags = _tags(if_none_match or [])
    return None if tags is None else [tag for _, tag in tags]


KnownTags: TypeAlias = Annotated[list[str] | None, Depends(_if_none_match)]
"""The opaque parts of `If-None-Match`, compared weakly; None for any."""
