"""What every request and reply passes: its id, its headers, its time, and the last net under errors; pure ASGI."""

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

# Where a request's scope keeps the last verdict of each policy: headers of the IETF draft "RateLimit header fields for
# HTTP".
LIMIT_DECISIONS = "service.limits"
BODY_SECONDS = 30
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STOPPING = "The service stops."
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


DOCUMENTS = ("/docs", "/redoc", "/static-offline-docs")
DOCUMENTS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)


class RequestContextMiddleware:
    """Gives each request an id and each reply its headers; what fails inside becomes a problem, and is logged."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        handle = {"http": self._request, "websocket": self._socket}.get(scope["type"], self.app)
        await handle(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # RFC 9110, section 9.3.2: as GET; the server leaves the content out
            scope = {**scope, "method": "GET", responses.HEAD: True}
        reply = _Reply(scope, send)
        token = logs.request_id.set(reply.request_id)
        try:
            await self.app(scope, Body(receive, BODY_SECONDS).receive, reply.send)
        except ClientDisconnect:
            logger.debug("the client left")
        except asyncio.CancelledError:  # the server stops, and has waited as long as it does
            logger.warning("the request is broken off")
            if not reply.started:
                await problems.problem(503, STOPPING, code="unavailable", headers={"Retry-After": "1"})(
                    scope, receive, reply.send
                )
        except Exception:  # the last net: whatever it was, the client gets a problem and the log the trace
            logger.opt(exception=True).error("request failed")
            if reply.started:
                raise
            await problems.problem(500, problems.DETAILS[500])(scope, receive, reply.send)
        finally:
            reply.log()
            logs.request_id.reset(token)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _sane_id(scope)

        async def tell(message: Message) -> None:
            if message["type"] == "websocket.http.response.start":
                headers = MutableHeaders(scope=message)
                _limits(scope, headers)
                for name, value in (HEADERS | {"X-Request-ID": request_id}).items():
                    headers.setdefault(name, value)
            await send(message)

        token = logs.request_id.set(request_id)
        try:
            await self.app(scope, receive, tell)
        finally:
            logs.request_id.reset(token)


def _sane_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else secrets.token_hex(16)


def _limits(scope: Scope, headers: MutableHeaders) -> None:
    if verdicts := scope.get(LIMIT_DECISIONS):
        headers["RateLimit-Policy"] = ", ".join(f'"{one.policy}";q={one.limit};w=60' for one in verdicts.values())
        headers["RateLimit"] = ", ".join(f'"{one.policy}";r={one.remaining};t={one.reset}' for one in verdicts.values())


class Body:
    """Passes a request's body on, as long as it comes in time: each part of it, or the whole."""

    def __init__(self, receive: Receive, seconds: float, *, whole: bool = False) -> None:
        self._receive = receive
        self._seconds, self._whole = seconds, whole
        self._ends = time.monotonic() + seconds
        self._complete = False

    async def receive(self) -> Message:
        """Give the next message; 408 where it comes too late."""
        if self._complete:  # what comes now is the client's leaving, and may take long
            return await self._receive()
        try:
            async with asyncio.timeout(self._ends - time.monotonic() if self._whole else self._seconds):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408) from None
        self._complete = not message.get("more_body", False)
        return message


class _Reply:
    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = _sane_id(scope)
        self.started = False
        self._scope = scope
        self._send = send
        self._begun = time.perf_counter()
        self._status = 0
        self._spent = server_timing.begin()
        self._replaced = False
        self._left = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type") != "application/problem+json":
                self._replaced = True
                await self._replace(message["status"], headers)
                return
            self._start(message["status"], headers)
        await self._deliver(message)

    async def _deliver(self, message: Message) -> None:
        if self._left:
            return
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # the server's, where the connection has ended
            self._left = True
            logger.bind(error=str(error)).debug("the client left")

    async def _replace(self, status: int, headers: MutableHeaders) -> None:
        """Send a problem in place of an error that a part of the framework worded in plain text."""
        kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
        response = problems.problem(status, problems.DETAILS.get(status, "The request was refused."), headers=kept)
        self._start(status, response.headers)
        await self._deliver({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await self._deliver({"type": "http.response.body", "body": response.body})

    def _start(self, status: int, headers: MutableHeaders) -> None:
        self.started, self._status = True, status
        _limits(self._scope, headers)
        if self._scope["path"].startswith(DOCUMENTS):
            headers["Content-Security-Policy"] = DOCUMENTS_POLICY
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-ID"] = self.request_id
        spent = {**self._spent, "total": self._milliseconds()}
        headers["Server-Timing"] = ", ".join(f"{part};dur={milliseconds:.1f}" for part, milliseconds in spent.items())

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._begun) * 1000

    def log(self) -> None:
        route = getattr(self._scope.get("route"), "path", "")
        method = "HEAD" if responses.HEAD in self._scope else self._scope["method"]
        metrics.REQUESTS.labels(method if method in METHODS else "other", route, self._status).observe(
            self._milliseconds() / 1000
        )
        logger.bind(
            method=method,
            path=self._scope["path"],
            status=self._status,
            milliseconds=round(self._milliseconds(), 1),
        ).debug("request")
