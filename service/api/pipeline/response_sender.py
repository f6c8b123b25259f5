"""The sending side of a request: the headers of every response, and what is measured of it."""

from __future__ import annotations

import re
import time
from functools import cache, lru_cache
from random import getrandbits
from typing import TYPE_CHECKING

from loguru import logger
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from service.api import problems, responses
from service.api.connection import CYCLE_EXTENSION, RequestCycle
from service.api.headers import ROUTE, headers_of
from service.api.responses import BytesResponse
from service.core import logs, metrics, server_timing
from service.ratelimit.limiter import LimitDecision

if TYPE_CHECKING:
    from prometheus_client import Histogram  # at run time service.core.metrics must import it first

LIMIT_DECISIONS = "service.limits"
"""Where a request's scope keeps the last LimitDecision of each policy."""


METRIC_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
DEFAULT_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
MAX_HEADER_SETS = 1000
PROBLEM_TYPE = (b"content-type", problems.MEDIA_TYPE.encode())


def request_id_of(scope: Scope) -> str:
    """Return the client's id of the request, or a new one if it has none that is safe to log."""
    request_id = headers_of(scope).get(b"x-request-id")
    if request_id and REQUEST_ID.fullmatch(request_id):
        return request_id.decode()
    return f"{getrandbits(128):032x}"  # no secret: an id from the operating system takes 1 µs more


def add_headers(scope: Scope, headers: list[tuple[bytes, bytes]], *, request_id: str) -> None:
    """Add the headers of every response: defaults that it does not set itself, the limits, and the request's id."""
    fields = _defaults_beside(frozenset([name.decode("latin-1") for name, _ in headers]))
    fields += _fields_of_request(scope, request_id)
    headers += [(name.encode(), value.encode()) for name, value in fields]


def _fields_of_request(scope: Scope, request_id: str) -> list[tuple[str, str]]:
    decisions: dict[str, LimitDecision] | None = scope.get(LIMIT_DECISIONS)
    fields = [("x-request-id", request_id)]
    if decisions:  # the IETF draft "RateLimit header fields for HTTP"
        policies = ", ".join([f'"{one.policy}";q={one.limit};w=60' for one in decisions.values()])
        states = ", ".join([f'"{one.policy}";r={one.remaining};t={one.reset}' for one in decisions.values()])
        fields += [("ratelimit-policy", policies), ("ratelimit", states)]
    return fields


class ResponseSender:
    """The sending side of one HTTP request: adds the headers, replaces plain-text errors, measures and records."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = request_id_of(scope)
        self.started = False
        self._scope, self._send = scope, send
        self._started_at = time.perf_counter()
        self._status = 0
        self._timings = server_timing.begin()
        self._is_replaced = False
        self._is_disconnected = False

    def write(self, response: BytesResponse) -> bool:
        """Write a whole response at once, if the server's connection can; return whether it was written."""
        cycle: RequestCycle | None = self._scope.get("extensions", {}).get(CYCLE_EXTENSION)
        if cycle is None or not cycle.is_ready():
            return False
        fields = response.fields
        lines = [*fields.items(), *_fields_of_request(self._scope, self.request_id), self._server_timing()]
        head = "".join([f"{name}: {value}\r\n" for name, value in lines])
        if not head.count("\n") == head.count("\r") == len(lines):
            return False  # a line break in a value, which the server refuses
        self.started, self._status = True, response.status_code
        head += _default_lines(tuple(fields))
        cycle.write(response.status_code, head.encode("latin-1"), bytes(response.body))
        return True

    async def send(self, message: Message) -> None:
        """Send a message to the client, and nothing after it has disconnected."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            if message["status"] >= 400 and PROBLEM_TYPE not in message["headers"]:
                self._is_replaced = True
                await self._send_problem(message)
                return
            self._start(message["status"], message["headers"])
        await self._deliver(message)

    async def _deliver(self, message: Message) -> None:
        if self._is_disconnected:
            return
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # of uvicorn, after the connection has ended
            self._is_disconnected = True
            logger.bind(error=str(error)).debug("client disconnected")

    async def _send_problem(self, start: Message) -> None:
        """Send a problem in place of an error that the framework wrote as plain text."""
        status, headers = start["status"], MutableHeaders(raw=start["headers"])
        kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
        response = problems.problem(problems.CODES[status], headers=kept)
        self._start(status, response.raw_headers)
        await self._deliver({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await self._deliver({"type": "http.response.body", "body": response.body})

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started, self._status = True, status
        add_headers(self._scope, headers, request_id=self.request_id)
        name, value = self._server_timing()
        headers.append((name.encode(), value.encode()))

    def _server_timing(self) -> tuple[str, str]:
        timings = "".join([f"{part};dur={milliseconds:.1f}, " for part, milliseconds in self._timings.items()])
        return "server-timing", f"{timings}total;dur={self._milliseconds():.1f}"

    def _milliseconds(self) -> float:
        return (time.perf_counter() - self._started_at) * 1000

    def record(self) -> None:
        """Count the request in the metrics, and log it."""
        milliseconds = self._milliseconds()
        scope = self._scope
        method = "HEAD" if responses.HEAD in scope else scope["method"]
        label = method if method in METRIC_METHODS else "other"
        _seconds_of(label, scope.get(ROUTE, ""), self._status).observe(milliseconds / 1000)
        if logs.is_read(logs.DEBUG):
            fields = {"method": method, "path": scope["path"], "status": self._status}
            logger.bind(**fields, milliseconds=round(milliseconds, 1)).debug("request handled")


def _defaults_beside(names: frozenset[str]) -> list[tuple[str, str]]:
    """Return the default headers that a response with these headers does not set itself."""
    return [field for field in DEFAULT_HEADERS.items() if field[0] not in names]


@lru_cache(MAX_HEADER_SETS)
def _default_lines(names: tuple[str, ...]) -> str:
    fields = _defaults_beside(frozenset([name.lower() for name in names]))
    return "".join([f"{name}: {value}\r\n" for name, value in fields])


@cache
def _seconds_of(method: str, route: str, status: int) -> Histogram:
    return metrics.REQUESTS.labels(method, route, status)
