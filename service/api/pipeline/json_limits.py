"""Bounds on how many values a JSON body holds."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.request_checks import MERGE_PATCH, media_type

MAX_VALUES = 50_000  # of a body; a thousand tasks with all of their fields are 14,000


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
            if values.count > MAX_VALUES:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)
