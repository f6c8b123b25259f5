"""Bounds on request bodies: their size, their time, their JSON values, and how many large ones are in progress."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope
from typing_extensions import override

from service.api.authentication import require_viewer
from service.api.connection import CYCLE_EXTENSION, RequestCycle
from service.api.headers import headers_of
from service.api.pipeline.json_limits import MAX_VALUES, JsonValueCounter
from service.api.request_checks import MERGE_PATCH, has_body, media_type
from service.core.concurrency import ConcurrencyLimiter

MAX_BODY_BYTES = 1_000_000
# Authenticated users may send larger bodies to some routes.
MAX_LARGE_BODY_BYTES = {("POST", "/tasks/bulk"): 16_000_000}
UPLOAD_PATH = re.compile(r"/tasks/[0-9]+/attachments", re.ASCII)
MAX_MULTIPART_OVERHEAD_BYTES = 64 * 1024
MAX_LARGE_BODIES = 6  # until the response is sent; each takes some 50 MB
MAX_LARGE_BODIES_PER_USER = 2  # so that it takes three accounts to block all others
BODY_PART_TIMEOUT_SECONDS = 30.0
LARGE_BODY_TIMEOUT_SECONDS = 60.0  # for the whole body, because other requests wait for its slot
SLOT_TIMEOUT_SECONDS = 15.0
CONTENT_LENGTH = re.compile(rb"\d{1,15}")


class BodyLimits:
    """The limits of all request bodies of a process.

    A route with a limit of its own refuses a request without a valid token before it reads the body.
    """

    def __init__(self, *, max_attachment_bytes: int) -> None:
        self._max_upload_bytes = max_attachment_bytes + MAX_MULTIPART_OVERHEAD_BYTES
        self._slots = ConcurrencyLimiter("large bodies", total=MAX_LARGE_BODIES, per_user=MAX_LARGE_BODIES_PER_USER)

    def bound(self, scope: Scope, receive: Receive) -> tuple[Receive, AbstractAsyncContextManager[None] | None]:
        """Return what receives the body within its limits, and the slot that a large body needs until its response.

        Raises: HTTPException 413 or 415, and the errors of `require_viewer`.
        """
        request = Request(scope)
        if scope["method"] != "GET" and has_body(request.scope) and _is_encoded(request):
            detail = "The service accepts no Content-Encoding."  # RFC 9110, section 15.5.16
            raise HTTPException(415, detail, headers={"Accept-Encoding": "identity"})
        route = (scope["method"], scope["path"])
        if route in MAX_LARGE_BODY_BYTES:
            return self._bound_large(request, receive, MAX_LARGE_BODY_BYTES[route])
        if scope["method"] == "POST" and UPLOAD_PATH.fullmatch(scope["path"]):
            require_viewer(request)
            return BoundedBody(request, receive, max_bytes=self._max_upload_bytes).receive, None
        return JsonBody(request, receive, max_bytes=MAX_BODY_BYTES).receive, None

    def _bound_large(
        self, request: Request, receive: Receive, max_bytes: int
    ) -> tuple[Receive, AbstractAsyncContextManager[None] | None]:
        """Admit a few bodies above MAX_BODY_BYTES at once. Others wait, with the body unread."""
        viewer = require_viewer(request)
        length = _content_length(request.scope)
        if not has_body(request.scope) or (length is not None and not MAX_BODY_BYTES < length <= max_bytes):
            return JsonBody(request, receive, max_bytes=max_bytes).receive, None
        body = JsonBody(request, receive, max_bytes=max_bytes, seconds_in_all=LARGE_BODY_TIMEOUT_SECONDS)
        return body.receive, self._slots.slot_within(SLOT_TIMEOUT_SECONDS, viewer.id)


class BoundedBody:
    """A request's body within `max_bytes`, and in time: each part of it, or all of it within `seconds_in_all`.

    Raises HTTPException 413 if the body is announced as larger.
    """

    def __init__(
        self,
        request: Request,
        receive: Receive,
        *,
        max_bytes: int,
        seconds_in_all: float | None = None,
    ) -> None:
        self._receive = receive
        self._cycle: RequestCycle | None = request.scope.get("extensions", {}).get(CYCLE_EXTENSION)
        self._max_bytes = max_bytes
        self._ends_at = None if seconds_in_all is None else time.monotonic() + seconds_in_all
        self._size = 0
        self._is_complete = False
        if (_content_length(request.scope) or 0) > max_bytes:
            raise HTTPException(413)

    async def receive(self) -> Message:
        """Return the next message. Raises HTTPException 408 if it arrives too late, 413 if the body is too large."""
        if self._is_complete:  # the next message is the client's disconnect, which has no limit
            return await self._receive()
        message = self._arrived_body() or await self._receive_in_time()
        self._is_complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._max_bytes:
            raise HTTPException(413)
        self._check(message)
        return message

    def _arrived_body(self) -> Message | None:
        body = self._cycle.pop_body() if self._cycle else None
        return None if body is None else {"type": "http.request", "body": body, "more_body": False}

    async def _receive_in_time(self) -> Message:
        seconds = BODY_PART_TIMEOUT_SECONDS if self._ends_at is None else self._ends_at - time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                return await self._receive()
        except TimeoutError:
            raise HTTPException(408) from None

    def _check(self, message: Message) -> None:
        """Check the content of the next part."""


class JsonBody(BoundedBody):
    """A bounded body that may hold JSON: of at most MAX_VALUES values, because parsing more takes seconds.

    Meanwhile the process would serve nobody else.
    """

    def __init__(self, request: Request, receive: Receive, **limits: Any) -> None:
        super().__init__(request, receive, **limits)
        self._is_json = media_type(request) in MERGE_PATCH
        self._values = JsonValueCounter()

    @override
    def _check(self, message: Message) -> None:
        body = message.get("body", b"")
        if b"\0" in body:  # the body is not UTF-8, so that the count would be wrong
            raise HTTPException(400)
        is_harmless = self._is_complete and self._size == len(body) <= MAX_VALUES and not (b"N" in body or b"I" in body)
        if is_harmless:  # each value takes at least a byte
            return
        self._values.add(body)
        if self._is_json and self._values.has_constants:
            raise HTTPException(400, "The body is not JSON.")
        if self._values.count > MAX_VALUES:
            raise HTTPException(413)


def _content_length(scope: Scope) -> int | None:
    """Return the length that the request announces; None if it announces none, or none that can be read."""
    value = headers_of(scope).get(b"content-length", b"")
    return int(value) if CONTENT_LENGTH.fullmatch(value) else None


def _is_encoded(request: Request) -> bool:
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    return any(coding.strip() not in {"", "identity"} for coding in codings)
