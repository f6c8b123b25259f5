"""The outermost layer of a request: its id, response headers, body timeout, metrics, and the last handler of errors."""

from __future__ import annotations

import asyncio
import re
import secrets
import time

from loguru import logger
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems, responses
from service.core import logs, metrics, server_timing

LIMIT_DECISIONS = "service.limits"
"""Where a request's scope keeps the last LimitDecision of each policy."""
BODY_PART_TIMEOUT_SECONDS = 30
METRIC_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
DOCUMENT_PATHS = ("/docs", "/redoc", "/static-offline-docs")
DOCUMENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)


class RequestContextMiddleware:
    """Pure ASGI middleware that frames each request: id, headers, timeouts, metrics, and a problem for any error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of any type."""
        handle = {"http": self._handle_http, "websocket": self._handle_websocket}.get(scope["type"], self.app)
        await handle(scope, receive, send)

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # RFC 9110, section 9.3.2: as GET; the server leaves the content out
            scope = {**scope, "method": "GET", responses.HEAD: True}
        sender = _ResponseSender(scope, send)
        token = logs.request_id.set(sender.request_id)
        try:
            await self.app(scope, TimedBody(receive, BODY_PART_TIMEOUT_SECONDS).receive, sender.send)
        except ClientDisconnect:
            logger.debug("client disconnected")
        except asyncio.CancelledError:  # by the server, at the end of its shutdown timeout
            logger.warning("request cancelled")
            if not sender.started:
                stopping = problems.problem("unavailable", "The service is stopping.", headers={"Retry-After": "1"})
                await stopping(scope, receive, sender.send)
        except Exception:
            logger.opt(exception=True).error("request failed")
            if sender.started:
                raise
            await problems.problem("internal")(scope, receive, sender.send)
        finally:
            sender.record()
            logs.request_id.reset(token)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "websocket.http.response.start":
                headers = MutableHeaders(scope=message)
                _add_rate_limit(scope, headers)
                for name, value in (DEFAULT_HEADERS | {"X-Request-ID": request_id}).items():
                    headers.setdefault(name, value)
            await send(message)

        token = logs.request_id.set(request_id)
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            logs.request_id.reset(token)


def _request_id(scope: Scope) -> str:
    """Return the client's id of the request, or a new one if it has none that is safe to log."""
    request_id = Headers(scope=scope).get("x-request-id", "")
    return request_id if REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)


def _add_rate_limit(scope: Scope, headers: MutableHeaders) -> None:
    """Add the headers of the IETF draft "RateLimit header fields for HTTP"."""
    if decisions := scope.get(LIMIT_DECISIONS):
        headers["RateLimit-Policy"] = ", ".join(f'"{one.policy}";q={one.limit};w=60' for one in decisions.values())
        headers["RateLimit"] = ", ".join(
            f'"{one.policy}";r={one.remaining};t={one.reset}' for one in decisions.values()
        )


class TimedBody:
    """A request's body with a timeout of `seconds`, for each part of it or for the whole."""

    def __init__(self, receive: Receive, seconds: float, *, whole: bool = False) -> None:
        self._receive = receive
        self._seconds, self._whole = seconds, whole
        self._ends_at = time.monotonic() + seconds
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next message. Raises HTTPException 408 if it arrives too late."""
        if self._is_complete:  # the next message is the client's disconnect, which has no limit
            return await self._receive()
        try:
            async with asyncio.timeout(self._ends_at - time.monotonic() if self._whole else self._seconds):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408) from None
        self._is_complete = not message.get("more_body", False)
        return message


class _ResponseSender:
    """The sending side of one HTTP request: adds the headers, replaces plain-text errors, measures and records."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = _request_id(scope)
        self.started = False
        self._scope, self._send = scope, send
        self._started_at = time.perf_counter()
        self._status = 0
        self._timings = server_timing.begin()
        self._is_replaced = False
        self._is_disconnected = False

    async def send(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type") != problems.MEDIA_TYPE:
                self._is_replaced = True
                await self._send_problem(message["status"], headers)
                return
            self._start(message["status"], headers)
        await self._deliver(message)

    async def _deliver(self, message: Message) -> None:
        if self._is_disconnected:
            return
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # of uvicorn, after the connection has ended
            self._is_disconnected = True
            logger.bind(error=str(error)).debug("client disconnected")

    async def _send_problem(self, status: int, headers: MutableHeaders) -> None:
        """Send a problem in place of an error that the framework wrote as plain text."""
        kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
        response = problems.problem(problems.CODES[status], headers=kept)
        self._start(status, response.headers)
        await self._deliver({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await self._deliver({"type": "http.response.body", "body": response.body})

    def _start(self, status: int, headers: MutableHeaders) -> None:
        self.started, self._status = True, status
        _add_rate_limit(self._scope, headers)
        if self._scope["path"].startswith(DOCUMENT_PATHS):
            headers["Content-Security-Policy"] = DOCUMENT_POLICY
        for name, value in DEFAULT_HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-ID"] = self.request_id
        timings = {**self._timings, "total": self._milliseconds()}
        headers["Server-Timing"] = ", ".join(f"{part};dur={milliseconds:.1f}" for part, milliseconds in timings.items())

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._started_at) * 1000

    def record(self) -> None:
        """Count the request in the metrics, and log it."""
        milliseconds = self._milliseconds()
        route = getattr(self._scope.get("route"), "path", "")
        method = "HEAD" if responses.HEAD in self._scope else self._scope["method"]
        label = method if method in METRIC_METHODS else "other"
        metrics.REQUESTS.labels(label, route, self._status).observe(milliseconds / 1000)
        logger.bind(
            method=method, path=self._scope["path"], status=self._status, milliseconds=round(milliseconds, 1)
        ).debug("request handled")
