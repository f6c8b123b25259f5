"""Bounds on request bodies: how large, and how many large ones at once."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.authentication import require_viewer
from service.api.pipeline.json_limits import _FewValues
from service.api.pipeline.request_context import Body
from service.api.request_checks import has_body
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import ServiceError, UnavailableError

MAX_BODY_BYTES = 1_000_000
MAX_LARGE_BODY_BYTES = {("POST", "/tasks/bulk"): 16_000_000}  # of who is known
UPLOAD = re.compile(r"/tasks/[0-9]+/attachments", re.ASCII)  # of who is known: the largest attachment, and
UPLOAD_FRAME = 64 * 1024  # what a client may say around it
LARGE_BODIES = 6  # read, worked on or answered at once: each takes some 50 MB
LARGE_BODIES_OF_ONE = 2  # so that it takes three accounts to hold up all others
LARGE_BODY_SECONDS = 60.0  # for the whole, which keeps others waiting
WAIT_SECONDS = 15.0
SENSIBLE_LENGTH = re.compile(r"\d{1,15}", re.ASCII)


class _FewLarge:
    """Reads bodies that are larger than others' a few at a time; who comes then waits, unread."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._largest = largest
        self._turns = ConcurrencyLimiter("large bodies", total=LARGE_BODIES, per_user=LARGE_BODIES_OF_ONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request of who is known."""
        request = HTTPConnection(scope)
        length = request.headers.get("content-length", "")
        is_small = SENSIBLE_LENGTH.fullmatch(length) and not MAX_BODY_BYTES < int(length) <= self._largest
        await (self._in_turn if has_body(request) and not is_small else self._app)(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        async with AsyncExitStack() as stack:
            try:
                slot = self._turns.slot_within(WAIT_SECONDS, (await require_viewer(request)).id)
                await stack.enter_async_context(slot)
            except UnavailableError as error:
                response = await problems.on_service_error(request, error)
                await response(scope, receive, send)
            else:
                await self._app(scope, Body(receive, LARGE_BODY_SECONDS, whole=True).receive, send)


class BodyLimitMiddleware:
    """Limits bodies and how much is in them; where a route takes larger ones, who is not known is refused unread."""

    def __init__(self, app: ASGIApp, *, max_attachment_bytes: int) -> None:
        self.app = app
        few = _FewValues(app)
        self._common = RequestBodyLimitMiddleware(few, MAX_BODY_BYTES)
        self._own = {
            route: RequestBodyLimitMiddleware(_FewLarge(few, size), size)
            for route, size in MAX_LARGE_BODY_BYTES.items()
        }
        self._upload = RequestBodyLimitMiddleware(app, max_attachment_bytes + UPLOAD_FRAME)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""
        return (self._limited if scope["type"] == "http" else self.app)(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._app_for(HTTPConnection(scope)))(scope, receive, send)

    async def _app_for(self, request: HTTPConnection) -> ASGIApp:
        method, path = request.scope["method"], request.scope["path"]
        if method != "GET" and has_body(request) and _encoded(request):
            detail = "The body takes no Content-Encoding."  # RFC 9110, section 15.5.16
            return problems.problem(415, detail, headers={"Accept-Encoding": "identity"})
        own = self._upload if method == "POST" and UPLOAD.fullmatch(path) else self._own.get((method, path))
        if own is None:
            return self._common
        try:
            await require_viewer(request)
        except ServiceError as error:
            return await problems.on_service_error(request, error)
        return own


def _encoded(request: HTTPConnection) -> bool:
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return any(coding.strip() not in {"", "identity"} for coding in codings)
