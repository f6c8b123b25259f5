"""Limits of requests: how many, by fastapi-limiter's limiter, before anything else is read; how large; pure ASGI."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

from fastapi_limiter.depends import RateLimiter
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.concurrency import Turns
from service.core.errors import RateLimitedError, ServiceError, UnavailableError
from service.core.viewer import Viewer
from service.limits import client_address
from service.ratelimit.limiter import Limit, Verdict
from service.ratelimit.login_limiter import LogInAttempt
from service.web import replies
from service.web.deps import (
    LARGEST_BODIES,
    LARGEST_BODY,
    MERGE_PATCH,
    MOST_VALUES,
    UPLOAD,
    UPLOAD_FRAME,
    credential_of,
    has_body,
    identity_of,
    media_type,
    rooms_of,
    viewer_of,
)
from service.web.middleware import VERDICTS, Body

UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})
LOG_INS = frozenset({"/auth/login", "/auth/refresh", "/auth/register"})  # before the body is read
LARGE_BODIES = 6  # read, worked on or answered at once: each takes some 50 MB
LARGE_BODIES_OF_ONE = 2  # so that it takes three accounts to hold up all others
LARGE_BODY_SECONDS = 60.0  # for the whole, which keeps others waiting
PATIENCE_SECONDS = 15.0
SENSIBLE_LENGTH = re.compile(r"\d{1,15}", re.ASCII)
# The library's own limiter is not used: its limits are the application's, which is not made yet.
NO_LIMITER: Any = None


async def address_of(request: HTTPConnection) -> str:
    """Give the address that a request is counted under."""
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.getlist("x-forwarded-for"), rooms_of(request).limits.trusted)


async def user_of(request: HTTPConnection) -> str:
    """Give whom a request is counted under: the user of its token, or its address where there is no good one."""
    identity = await identity_of(request)
    return f"user:{identity.id}" if isinstance(identity, Viewer) else f"address:{await address_of(request)}"


def spent(request: HTTPConnection, verdict: Verdict) -> None:
    """Put a verdict into the reply's headers; RateLimitedError where it is a refusal."""
    request.scope.setdefault(VERDICTS, {})[verdict.policy] = verdict
    if verdict.retry_after:
        raise RateLimitedError("Too many requests.", retry_after=verdict.retry_after)


async def attempt_of(request: HTTPConnection, *, account: str | None = None) -> LogInAttempt:
    """Return what pays for the hashes of a request; `account` is the username that it names, if any."""
    return LogInAttempt(
        rooms_of(request).limits.log_ins,
        address=await address_of(request),
        account=account,
        verdicts=request.scope.setdefault(VERDICTS, {}),
    )


class PerKey(RateLimiter):
    """One budget for each key that the library's `identifier` gives.

    The library's own `__call__` fails on routes of an included router, and puts all clients that share a path into one
    bucket of a limiter that holds one lock over its round trips.
    """

    async def __call__(self, request: HTTPConnection, limit: Limit) -> None:  # type: ignore[override]
        """Spend one permit of the key; RateLimitedError."""
        spent(request, await limit.check(await self.identifier(request)))


class Limited:
    """Limits every request and WebSocket but those to UNLIMITED, whatever will be answered, before a body is read.

    One budget for each user over all paths, for each address where there is no user; log-ins, registrations and
    refreshes have their own for each address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._requests = PerKey(NO_LIMITER, identifier=user_of)
        self._log_ins = PerKey(NO_LIMITER, identifier=address_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        limited = scope["type"] in {"http", "websocket"} and scope["path"] not in UNLIMITED
        refusal = await self._refusal(HTTPConnection(scope)) if limited else None
        await (refusal or self.app)(scope, receive, send)

    async def _refusal(self, request: HTTPConnection) -> Response | None:
        try:
            await self._check(request)
        except RateLimitedError as error:
            return await replies.on_service_error(request, error)
        return None

    async def _check(self, request: HTTPConnection) -> None:
        limits = rooms_of(request).limits
        if limits.log_ins and request.scope.get("method") == "POST" and request.scope["path"] in LOG_INS:
            await self._log_ins(request, limits.log_ins.by_address)
        elif limits.requests:
            await _refuse_guesses(request, limits.requests)
            await self._requests(request, limits.requests)


async def _refuse_guesses(request: HTTPConnection, limit: Limit) -> None:
    """RateLimitedError for a key that only the database knows, from an address that has spent its budget on others."""
    credential, address = credential_of(request), f"address:{await address_of(request)}"
    if credential and not rooms_of(request).logins.sessions.knows(credential) and limit.is_spent(address):
        spent(request, await limit.check(address))


class Values:
    """Counts what a JSON text holds, as its parts arrive: texts, brackets that open, and commas."""

    def __init__(self) -> None:
        self.count = 0
        self.constants = False
        """Whether there is NaN or Infinity, which are not JSON (RFC 8259, section 6) and which Python takes."""
        self._in_text = False
        self._escaped = False

    def add(self, part: bytes) -> None:
        """Count on."""
        if not part:
            return
        bare = part[self._escaped :].replace(rb"\\", b"").replace(rb"\"", b"")
        self._escaped = bare.endswith(b"\\")
        pieces = bare.split(b'"')
        outside = b"".join(pieces[self._in_text :: 2])
        self.constants |= b"N" in outside or b"I" in outside
        self.count += (len(pieces) - self._in_text) // 2 + sum(outside.count(sign) for sign in (b",", b"[", b"{"))
        self._in_text ^= len(pieces) % 2 == 0


class _FewValues:
    """Refuses bodies that hold very many values: reading those takes seconds, in which nobody else is served."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        values = Values()
        is_json = media_type(HTTPConnection(scope)) in MERGE_PATCH

        async def counted() -> Message:
            message = await receive()
            body = message.get("body", b"")
            if b"\0" in body:  # JSON is UTF-8; what is not would be counted wrongly
                raise HTTPException(400)
            values.add(body)
            if is_json and values.constants:
                raise HTTPException(400, "The body is not JSON.")
            if values.count > MOST_VALUES:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)


class _FewLarge:
    """Reads bodies that are larger than others' a few at a time; who comes then waits, unread."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._largest = largest
        self._turns = Turns("large bodies", most=LARGE_BODIES, of_one=LARGE_BODIES_OF_ONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request of who is known."""
        request = HTTPConnection(scope)
        length = request.headers.get("content-length", "")
        is_small = SENSIBLE_LENGTH.fullmatch(length) and not LARGEST_BODY < int(length) <= self._largest
        await (self._in_turn if has_body(request) and not is_small else self._app)(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        async with AsyncExitStack() as stack:
            try:
                turn = self._turns.turn_within(PATIENCE_SECONDS, (await viewer_of(request)).id)
                await stack.enter_async_context(turn)
            except UnavailableError as error:
                response = await replies.on_service_error(request, error)
                await response(scope, receive, send)
            else:
                await self._app(scope, Body(receive, LARGE_BODY_SECONDS, whole=True).receive, send)


class BodyLimited:
    """Limits bodies and how much is in them; where a route takes larger ones, who is not known is refused unread."""

    def __init__(self, app: ASGIApp, *, largest_attachment: int) -> None:
        self.app = app
        few = _FewValues(app)
        self._common = RequestBodyLimitMiddleware(few, LARGEST_BODY)
        self._own = {
            route: RequestBodyLimitMiddleware(_FewLarge(few, size), size) for route, size in LARGEST_BODIES.items()
        }
        self._upload = RequestBodyLimitMiddleware(app, largest_attachment + UPLOAD_FRAME)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""
        return (self._limited if scope["type"] == "http" else self.app)(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._app_for(HTTPConnection(scope)))(scope, receive, send)

    async def _app_for(self, request: HTTPConnection) -> ASGIApp:
        method, path = request.scope["method"], request.scope["path"]
        if method != "GET" and has_body(request) and _encoded(request):
            detail = "The body takes no Content-Encoding."  # RFC 9110, section 15.5.16
            return replies.problem(415, detail, headers={"Accept-Encoding": "identity"})
        own = self._upload if method == "POST" and UPLOAD.fullmatch(path) else self._own.get((method, path))
        if own is None:
            return self._common
        try:
            await viewer_of(request)
        except ServiceError as error:
            return await replies.on_service_error(request, error)
        return own


def _encoded(request: HTTPConnection) -> bool:
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return any(coding.strip() not in {"", "identity"} for coding in codings)
