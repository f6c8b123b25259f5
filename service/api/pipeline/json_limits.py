"""Bounds on how many values a JSON body holds."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.request_checks import MERGE_PATCH, media_type

MAX_VALUES = 50_000  # a thousand tasks with all their fields have 14,000


class JsonValueCounter:
    """A count of the texts, opening brackets and commas of a JSON text, taken while its parts arrive."""

    def __init__(self) -> None:
        self.count = 0
        self.has_constants = False
        """The text has NaN or Infinity: they are not JSON (RFC 8259, section 6), but Python accepts them."""
        self._in_text = False
        self._is_escaped = False

    def add(self, part: bytes) -> None:
        """Count the values of the next part."""
        if not part:
            return
        bare = part[self._is_escaped :].replace(rb"\\", b"").replace(rb"\"", b"")
        self._is_escaped = bare.endswith(b"\\")
        pieces = bare.split(b'"')
        outside = b"".join(pieces[self._in_text :: 2])
        self.has_constants |= b"N" in outside or b"I" in outside
        self.count += (len(pieces) - self._in_text) // 2 + sum(outside.count(sign) for sign in (b",", b"[", b"{"))
        self._in_text ^= len(pieces) % 2 == 0


class JsonValueLimitMiddleware:
    """Pure ASGI middleware that refuses bodies of more than MAX_VALUES values.

    Parsing one takes seconds, in which the process serves nobody else.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        values = JsonValueCounter()
        is_json = media_type(HTTPConnection(scope)) in MERGE_PATCH

        async def receive_counted() -> Message:
            message = await receive()
            body = message.get("body", b"")
            if b"\0" in body:  # the body is not UTF-8, so that the count would be wrong
                raise HTTPException(400)
            values.add(body)
            if is_json and values.has_constants:
                raise HTTPException(400, "The body is not JSON.")
            if values.count > MAX_VALUES:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_counted, send)
