"""Answers that are large: a few of each reader at once, in pieces, as long as the client takes them; pure ASGI."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.authentication import IDENTITY
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import UnavailableError
from service.core.viewer import Viewer

PIECE_BYTES = 64 * 1024  # so much of an answer may wait for its client when it is all sent
ANSWER_SECONDS = 60.0
LARGE_BYTES = 256 * 1024
LARGE, LARGE_OF_ONE = 32, 8  # of some 6 MB at most
WAIT_SECONDS = 3.0


class BackpressureMiddleware:
    """Sends bodies in pieces, each within ANSWER_SECONDS, and a few large ones at once of what a known reader asks for.

    What was done is answered in any case.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._turns = ConcurrencyLimiter("large answers", total=LARGE, per_user=LARGE_OF_ONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            send = _Answer(scope, receive, send, turns=self._turns).send
        await self.app(scope, receive, send)


class _Answer:
    def __init__(self, scope: Scope, receive: Receive, send: Send, *, turns: ConcurrencyLimiter) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._turns = turns
        self._start: Message | None = None  # until something follows it

    async def send(self, message: Message) -> None:
        """Send a message; ClientDisconnect where the client does not take it in time."""
        if message["type"] == "http.response.start":
            self._start = message
            if not self._is_large(message):
                await self._begin()
        elif self._start and len(message.get("body", b"")) > LARGE_BYTES:
            await self._send_in_turn(message)
        else:
            await self._begin()
            await self._send_in_time(message)

    def _is_large(self, start: Message) -> bool:
        is_read = self._scope["method"] == "GET" and isinstance(self._scope.get(IDENTITY), Viewer)
        return is_read and any(
            name == b"content-length" and int(value) > LARGE_BYTES for name, value in start["headers"]
        )

    async def _begin(self) -> None:
        if self._start:
            start, self._start = self._start, None
            await self._send(start)

    async def _send_in_turn(self, message: Message) -> None:
        try:
            async with self._turns.slot_within(WAIT_SECONDS, self._scope[IDENTITY].id):
                await self._begin()
                await self._send_in_time(message)
        except UnavailableError as error:
            response = await problems.on_service_error(HTTPConnection(self._scope), error)
            await response(self._scope, self._receive, self._send)

    async def _send_in_time(self, message: Message) -> None:
        if message.get("more_body") or len(message.get("body", b"")) <= PIECE_BYTES:
            await self._send(message)  # a file or a stream, which has limits of its own, or little
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send_in_pieces(message)
        except TimeoutError:
            raise ClientDisconnect from None

    async def _send_in_pieces(self, message: Message) -> None:
        """Send a body in pieces: the server takes the next one when the client has taken most of those before."""
        body = message["body"]
        last = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            await self._send({**message, "body": body[start : start + PIECE_BYTES], "more_body": True})
        await self._send({**message, "body": body[last:]})
