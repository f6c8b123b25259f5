"""Bounds on response bodies: pieces that the client must read in time, and a few large ones per reader at once."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service.api import problems
from service.api.authentication import IDENTITY
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import UnavailableError
from service.core.viewer import Viewer

PIECE_BYTES = 64 * 1024  # at most so much of a response waits for its client after the last piece
RESPONSE_TIMEOUT_SECONDS = 60.0
LARGE_RESPONSE_BYTES = 256 * 1024
MAX_LARGE_RESPONSES, MAX_LARGE_RESPONSES_PER_USER = 32, 8  # of some 6 MB at most
SLOT_TIMEOUT_SECONDS = 3.0


class Backpressure:
    """The slots of large responses, and the senders that send a body in pieces within RESPONSE_TIMEOUT_SECONDS.

    A large response to an authenticated GET needs a slot. A response to any other method needs none, because the client
    must learn what its request has done.
    """

    def __init__(self) -> None:
        self._slots = ConcurrencyLimiter(
            "large answers", total=MAX_LARGE_RESPONSES, per_user=MAX_LARGE_RESPONSES_PER_USER
        )

    def bounded(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Return what sends the messages of one response."""
        return _BoundedSender(scope, receive, send, slots=self._slots).send


class _BoundedSender:
    """The sending side of one request; it delays the start of a large response until there is a slot."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, slots: ConcurrencyLimiter) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._slots = slots
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Send a message. Raises ClientDisconnect if the client does not read it in time."""
        if message["type"] == "http.response.start":
            self._start = message
            if not self._needs_slot(message):
                await self._send_start()
        elif self._start and len(message.get("body", b"")) > LARGE_RESPONSE_BYTES:
            await self._send_in_slot(message)
        else:
            await self._send_start()
            await self._send_in_time(message)

    def _needs_slot(self, start: Message) -> bool:
        is_read = self._scope["method"] == "GET" and isinstance(self._scope.get(IDENTITY), Viewer)
        return is_read and any(
            name == b"content-length" and int(value) > LARGE_RESPONSE_BYTES for name, value in start["headers"]
        )

    async def _send_start(self) -> None:
        if self._start:
            start, self._start = self._start, None
            await self._send(start)

    async def _send_in_slot(self, message: Message) -> None:
        try:
            async with self._slots.slot_within(SLOT_TIMEOUT_SECONDS, self._scope[IDENTITY].id):
                await self._send_start()
                await self._send_in_time(message)
        except UnavailableError as error:
            await problems.of_error(error)(self._scope, self._receive, self._send)

    async def _send_in_time(self, message: Message) -> None:
        if message.get("more_body") or len(message.get("body", b"")) <= PIECE_BYTES:
            await self._send(message)  # a file or a stream, which has timeouts of its own, or a small body
            return
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):
                await self._send_in_pieces(message)
        except TimeoutError:
            raise ClientDisconnect from None

    async def _send_in_pieces(self, message: Message) -> None:
        """Send a body in pieces; the server accepts the next one after the client has read most of the last."""
        body = message["body"]
        last = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            await self._send({**message, "body": body[start : start + PIECE_BYTES], "more_body": True})
        await self._send({**message, "body": body[last:]})
