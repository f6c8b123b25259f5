"""Bounds on request bodies: how large one may be, and how many large ones are in progress at once."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.authentication import require_viewer
from service.api.pipeline.json_limits import JsonValueLimitMiddleware
from service.api.pipeline.request_context import TimedBody
from service.api.request_checks import has_body
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import ServiceError, UnavailableError

MAX_BODY_BYTES = 1_000_000
# Authenticated users may send larger bodies to some routes.
MAX_LARGE_BODY_BYTES = {("POST", "/tasks/bulk"): 16_000_000}
UPLOAD_PATH = re.compile(r"/tasks/[0-9]+/attachments", re.ASCII)
MAX_MULTIPART_OVERHEAD_BYTES = 64 * 1024
MAX_LARGE_BODIES = 6  # until the response is sent; each takes some 50 MB
MAX_LARGE_BODIES_PER_USER = 2  # so that it takes three accounts to block all others
LARGE_BODY_TIMEOUT_SECONDS = 60.0  # for the whole body, because other requests wait for its slot
SLOT_TIMEOUT_SECONDS = 15.0
CONTENT_LENGTH = re.compile(r"\d{1,15}", re.ASCII)


class LargeBodyMiddleware:
    """Pure ASGI middleware that admits a few bodies above MAX_BODY_BYTES at once. Others wait, with the body unread."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._slots = ConcurrencyLimiter("large bodies", total=MAX_LARGE_BODIES, per_user=MAX_LARGE_BODIES_PER_USER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request of an authenticated user."""
        request = HTTPConnection(scope)
        length = request.headers.get("content-length", "")
        needs_no_slot = CONTENT_LENGTH.fullmatch(length) and not MAX_BODY_BYTES < int(length) <= self._max_bytes
        handle = self._handle_in_slot if has_body(request) and not needs_no_slot else self._app
        await handle(scope, receive, send)

    async def _handle_in_slot(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        async with AsyncExitStack() as stack:
            try:
                slot = self._slots.slot_within(SLOT_TIMEOUT_SECONDS, (await require_viewer(request)).id)
                await stack.enter_async_context(slot)
            except UnavailableError as error:
                response = await problems.on_service_error(request, error)
                await response(scope, receive, send)
            else:
                body = TimedBody(receive, LARGE_BODY_TIMEOUT_SECONDS, whole=True)
                await self._app(scope, body.receive, send)


class BodyLimitMiddleware:
    """Pure ASGI middleware that bounds each body, by the limit of its route.

    A route with a limit of its own refuses a request without a valid token before it reads the body.
    """

    def __init__(self, app: ASGIApp, *, max_attachment_bytes: int) -> None:
        self.app = app
        value_limit = JsonValueLimitMiddleware(app)
        self._common = RequestBodyLimitMiddleware(value_limit, MAX_BODY_BYTES)
        self._large = {
            route: RequestBodyLimitMiddleware(LargeBodyMiddleware(value_limit, max_bytes), max_bytes)
            for route, max_bytes in MAX_LARGE_BODY_BYTES.items()
        }
        self._upload = RequestBodyLimitMiddleware(app, max_attachment_bytes + MAX_MULTIPART_OVERHEAD_BYTES)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one connection of any type."""
        return (self._handle_http if scope["type"] == "http" else self.app)(scope, receive, send)

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._app_for(HTTPConnection(scope)))(scope, receive, send)

    async def _app_for(self, request: HTTPConnection) -> ASGIApp:
        method, path = request.scope["method"], request.scope["path"]
        if method != "GET" and has_body(request) and _is_encoded(request):
            detail = "The service accepts no Content-Encoding."  # RFC 9110, section 15.5.16
            return problems.problem("unsupported_media_type", detail, headers={"Accept-Encoding": "identity"})
        is_upload = method == "POST" and UPLOAD_PATH.fullmatch(path)
        limited = self._upload if is_upload else self._large.get((method, path))
        if limited is None:
            return self._common
        try:
            await require_viewer(request)
        except ServiceError as error:
            return await problems.on_service_error(request, error)
        return limited


def _is_encoded(request: HTTPConnection) -> bool:
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return any(coding.strip() not in {"", "identity"} for coding in codings)
