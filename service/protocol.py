"""HTTP/1.1 on a socket: uvicorn's, with a bound on a request's head and a problem for what is no HTTP."""

from __future__ import annotations

import asyncio
import secrets
from http import HTTPStatus

import orjson
from loguru import logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import logs

LARGEST_HEAD = 64 * 1024
HEAD_SECONDS = 10


class Protocol(HttpToolsProtocol):
    """Ends a connection whose request line and headers are larger than LARGEST_HEAD or slower than HEAD_SECONDS."""

    _head = 0
    _in_head = True
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is not too large."""
        super().data_received(data)
        if self._in_head and self.parser is not None:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large.")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._arrived()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _wait(self) -> None:
        self._arrived()
        self._in_head, self._head = True, 0
        self._patience = self.loop.call_later(HEAD_SECONDS, self._late)

    def _arrived(self) -> None:
        self._in_head = False
        if self._patience is not None:
            self._patience.cancel()

    def _late(self) -> None:
        if self._answering():
            self._patience = self.loop.call_later(HEAD_SECONDS, self._late)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._arrived()
        if not self._answering():
            self.transport.write(_problem(status, detail))
        self.transport.close()


def _problem(status: HTTPStatus, detail: str) -> bytes:
    request_id = secrets.token_hex(16)
    token = logs.request_id.set(request_id)
    logger.bind(status=status.value).warning("refused before it was a request: {}", detail)
    logs.request_id.reset(token)
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    body = orjson.dumps(problem | {"code": status.name.lower(), "request_id": request_id})
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "connection: close",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        f"x-request-id: {request_id}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
