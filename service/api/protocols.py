"""HTTP/1.1 and WebSockets on a socket: uvicorn's, with bounds on what a client may hold."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
from loguru import logger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.exceptions import SecurityError

from service.api.connection import CONNECTION_EXTENSION, STALLED_SECONDS, ClientConnection
from service.api.connection_limits import RETRY_SECONDS, ConnectionLimits
from service.api.problems import CODES
from service.core import logs

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10
MAX_MESSAGE_BYTES = 64 * 1024
MAX_PART_BYTES = 8 * 1024  # of what has arrived: so much is read before others get their turn
MAX_FRAMES, FRAMES_SECONDS = 2000, 60.0
NO_TEXT, POLICY_VIOLATION, STUCK = 1007, 1008, 4408
QUIET = logging.getLogger("uvicorn.error.sockets")  # what uvicorn says of a WebSocket at INFO has its query string
QUIET.setLevel(logging.WARNING)
BROKEN_OFF = "ASGI callable returned without completing response."  # on purpose, and logged by who did it
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != BROKEN_OFF)
OTHER_UPGRADE = re.compile(rb"\r\nupgrade:(?![ \t]*websocket[ \t]*\r\n)", re.IGNORECASE)
http11.MAX_LINE_LENGTH = MAX_HEAD_BYTES  # of a handshake, which has been read, and bounded, as a request before


class Sockets(WebSocketsSansIOProtocol):
    """Ends a connection whose peer takes nothing, and lets frames be written that were made once for many."""

    peer: ClientConnection
    _counted: str | None = None
    _frames_since = float("-inf")
    _frames_count = 0

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.logger = self.conn.logger = QUIET
        self._limits = limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, in the place of the HTTP connection that was upgraded."""
        super().connection_made(transport)
        self._counted = self._limits.acquire(transport.get_extra_info("peername"))
        self.peer = ClientConnection(self.transport, self._stuck)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._counted is not None:
            self._limits.release(self._counted)
        self.peer.ended()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Watch the peer."""
        super().pause_writing()
        self.peer.pause()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self.peer.resume()

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; what is no text ends the connection, and is not worth a trace in the log."""
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self.conn.send_close(NO_TEXT)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    def handle_connect(self, event: Any) -> None:
        """Hand the connection on, with its wire."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[CONNECTION_EXTENSION] = self.peer
        event.headers.clear()  # the scope has them; the parser keeps this as long as the connection lives

    async def send(self, message: Any) -> None:
        """Send on; a refusal is a complete answer, which uvicorn takes for a fault of the handler."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        """Read a part at a time: tiny frames, of which a quarter of a megabyte arrives at once, take long."""
        for at in range(0, len(data), MAX_PART_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[at : at + MAX_PART_BYTES])
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse(self.conn.handshake_exc)

    def _refuse(self, error: BaseException) -> None:
        """Answer a handshake that cannot be read: it has too many headers, or a body."""
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        if isinstance(error.__cause__ or error, SecurityError):
            status, detail = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large."
        else:
            status, detail = HTTPStatus.BAD_REQUEST, "This is no handshake of a WebSocket."
        self.transport.write(_logged_problem(status, detail))
        self.transport.close()

    def handle_events(self) -> None:
        """Take the frames that were read, unless there are too many: those without content cost, too."""
        now = self.loop.time()
        if now - self._frames_since > FRAMES_SECONDS:
            self._frames_since, self._frames_count = now, 0
        self._frames_count += len(self.conn.events)
        if self._frames_count <= MAX_FRAMES:
            super().handle_events()
        elif self.close_sent or self.transport.is_closing():  # it goes on, though it was told
            self.conn.events_received()
            self.transport.abort()
        else:
            self.conn.fail(POLICY_VIOLATION, "too many frames")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """Answer, unless the peer does not read the answers."""
        output = self.conn.data_to_send()
        if not self.peer.blocked:
            self.transport.write(b"".join(output))

    def shutdown(self) -> None:
        """Stop; uvicorn's own fails where the peer has said goodbye and does not read the answer."""
        if self.conn.close_rcvd is None:
            super().shutdown()

    def _stuck(self) -> None:
        if not self.close_sent and self.conn.close_rcvd is None:
            self.conn.send_close(STUCK, "nothing was read")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": STUCK})


class Protocol(HttpToolsProtocol):
    """Ends a connection whose request line and headers are larger than LARGEST_HEAD or slower than HEAD_SECONDS."""

    _head = 0
    _in_head = True
    _in_body = False
    _wait_seconds: asyncio.TimerHandle | None = None
    _counted: str | None = None
    _peer: ClientConnection

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """Begin to wait for the first request, unless there are too many connections."""
        super().connection_made(transport)
        self._peer = ClientConnection(transport, transport.abort)
        self._counted = self._limits.acquire(transport.get_extra_info("peername"))
        if self._counted is not None:
            self._wait()
        else:
            detail, request_id = "Too many connections are open.", secrets.token_hex(16)
            transport.write(_problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, request_id=request_id))
            transport.close()

    def pause_writing(self) -> None:
        """Watch the peer."""
        super().pause_writing()
        self._peer.pause()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._peer.resume()

    def shutdown(self) -> None:
        """Stop, and let an answer without an end come to one."""
        self._peer.stopping.set()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._arrived()
        self._release()
        self._peer.ended()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to Sockets."""
        self._peer.ended()
        self._release()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as the head is not too large."""
        super().data_received(data if self._in_body else _without_other_upgrade(data))
        if self._in_head and self.parser is not None:
            self._head += len(data)
            if self._head > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's headers are too large.")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._arrived()
        self._peer.wait_seconds = STALLED_SECONDS
        extensions: Any = {CONNECTION_EXTENSION: self._peer}
        self.scope["extensions"] = extensions
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._in_body = False
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Serve this request and no other: for the parser HTTP has ended, and it would read the body as a request."""
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.transport.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _release(self) -> None:
        if self._counted is not None:
            self._limits.release(self._counted)
            self._counted = None

    def _wait(self) -> None:
        self._arrived()
        self._in_head, self._head = True, 0
        self._wait_seconds = self.loop.call_later(HEAD_SECONDS, self._late)

    def _arrived(self) -> None:
        self._in_head = False
        if self._wait_seconds is not None:
            self._wait_seconds.cancel()

    def _late(self) -> None:
        if self._answering():
            self._wait_seconds = self.loop.call_later(HEAD_SECONDS, self._late)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._arrived()
        if not self._answering():
            self.transport.write(_logged_problem(status, detail))
        elif self._in_body and not self.pipeline and not self.cycle.response_started:  # of this request and no other
            self.cycle.disconnected = True  # so that its handler's answer does not follow
            self.cycle.message_event.set()
            self.transport.write(_logged_problem(status, detail))
        self.transport.close()


def protocols(limits: ConnectionLimits) -> tuple[Any, Any]:
    """Return what uvicorn makes its HTTP and its WebSocket connections with; each process counts its own."""
    return partial(Protocol, limits=limits), partial(Sockets, limits=limits)


def _without_other_upgrade(data: bytes) -> bytes:
    """Leave out what asks for other protocols than WebSockets (RFC 9110, section 7.8): the parser drops the body."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return OTHER_UPGRADE.sub(b"\r\nx-upgrade:", head + end) + rest if b"pgrade" in head.lower() else data


def _logged_problem(status: HTTPStatus, detail: str) -> bytes:
    request_id = secrets.token_hex(16)
    token = logs.request_id.set(request_id)
    logger.bind(status=status.value).warning("refused before it was a request: {}", detail)
    logs.request_id.reset(token)
    return _problem(status, detail, request_id=request_id)


def _problem(status: HTTPStatus, detail: str, *, request_id: str) -> bytes:
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    body = orjson.dumps(problem | {"code": CODES.get(status, status.name.lower()), "request_id": request_id})
    retry = [f"retry-after: {RETRY_SECONDS}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *retry,
        "connection: close",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        f"x-request-id: {request_id}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
