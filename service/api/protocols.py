"""HTTP/1.1 and WebSockets on a socket: uvicorn's protocols, with bounds on what a client may hold."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.exceptions import SecurityError

from service.api.connection import CONNECTION_EXTENSION, MAX_STALL_SECONDS, ClientConnection
from service.api.connection_limits import RETRY_SECONDS, ConnectionLimits
from service.api.problems import logged_raw_problem, raw_problem
from service.core.close_codes import INVALID_TEXT, NOTHING_READ, POLICY_VIOLATION

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_SECONDS = 10
MAX_MESSAGE_BYTES = 64 * 1024
MAX_READ_BYTES = 8 * 1024
MAX_FRAMES, FRAME_WINDOW_SECONDS = 2000, 60.0
QUIET = logging.getLogger("uvicorn.error.sockets")  # at INFO uvicorn logs a WebSocket's query string
QUIET.setLevel(logging.WARNING)
INCOMPLETE_RESPONSE = "ASGI callable returned without completing response."  # ours end so on purpose, and log why
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != INCOMPLETE_RESPONSE)
OTHER_UPGRADE = re.compile(rb"\r\nupgrade:(?![ \t]*websocket[ \t]*\r\n)", re.IGNORECASE)
http11.MAX_LINE_LENGTH = MAX_HEAD_BYTES  # of a handshake: HttpProtocol has bounded its head already


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The protocol of a WebSocket: bounds frames, ends a connection whose peer reads nothing, sends encoded frames."""

    client_connection: ClientConnection
    _address: str | None = None
    _window_started_at = float("-inf")
    _window_frames = 0

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = self.conn.logger = QUIET
        self._limits = limits

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._address = self._limits.acquire(transport.get_extra_info("peername"))
        self.client_connection = ClientConnection(self.transport, self._close_stalled)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._address is not None:
            self._limits.release(self._address)
        self.client_connection.stop_polling()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.client_connection.is_paused = True

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.client_connection.is_paused = False

    @override
    def send_receive_event_to_app(self) -> None:
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:  # uvicorn would log it with a trace
            self.conn.send_close(INVALID_TEXT)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    @override
    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[CONNECTION_EXTENSION] = self.client_connection
        event.headers.clear()  # the parser keeps them while the connection lasts, and the scope has a copy

    @override
    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # else uvicorn reports the refusal as a fault of the application

    @override
    def data_received(self, data: bytes) -> None:
        # Up to 256 KB arrive at once. Parsed in parts, because many tiny frames take long and the connection may close.
        for start in range(0, len(data), MAX_READ_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + MAX_READ_BYTES])
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse(self.conn.handshake_exc)

    def _refuse(self, error: BaseException) -> None:
        """Answer a handshake that has too many headers, or a body."""
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        if isinstance(error.__cause__ or error, SecurityError):
            self.transport.write(logged_raw_problem("request_header_fields_too_large"))
        else:
            self.transport.write(logged_raw_problem("malformed", "This is not the handshake of a WebSocket."))
        self.transport.close()

    @override
    def handle_events(self) -> None:
        now = self.loop.time()
        if now - self._window_started_at > FRAME_WINDOW_SECONDS:
            self._window_started_at, self._window_frames = now, 0
        self._window_frames += len(self.conn.events)  # of every kind: frames without content cost time, too
        if self._window_frames <= MAX_FRAMES:
            super().handle_events()
        elif self.close_sent or self.transport.is_closing():  # the client sends on after the close frame
            self.conn.events_received()
            self.transport.abort()
        else:
            self.conn.fail(POLICY_VIOLATION, "too many frames")
            self.handle_parser_exception()

    @override
    def handle_ping(self) -> None:
        output = self.conn.data_to_send()
        if not self.client_connection.is_blocked:  # pongs that the peer does not read would pile up
            self.transport.write(b"".join(output))

    @override
    def shutdown(self) -> None:
        if self.conn.close_rcvd is None:  # else uvicorn's fails if the peer has closed and does not read the answer
            super().shutdown()

    def _close_stalled(self) -> None:
        if not self.close_sent and self.conn.close_rcvd is None:
            self.conn.send_close(NOTHING_READ, "nothing was read")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": NOTHING_READ})


class HttpProtocol(HttpToolsProtocol):
    """The protocol of an HTTP/1.1 connection: bounds the size of a request's head, and the time until it is complete.

    The head is the request line and the headers: MAX_HEAD_BYTES, and HEAD_TIMEOUT_SECONDS.
    """

    _head_bytes = 0
    _in_head = True
    _in_body = False
    _head_timer: asyncio.TimerHandle | None = None
    _address: str | None = None
    _client_connection: ClientConnection

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(transport)
        self._client_connection = ClientConnection(transport, transport.abort)
        self._address = self._limits.acquire(transport.get_extra_info("peername"))
        if self._address is not None:
            self._expect_head()
        else:
            transport.write(raw_problem("unavailable", "Too many connections are open.", retry_after=RETRY_SECONDS))
            transport.close()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._client_connection.is_paused = True

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._client_connection.is_paused = False

    @override
    def shutdown(self) -> None:
        self._client_connection.stopping.set()  # ends a response that has no end of its own
        super().shutdown()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._release()
        self._client_connection.stop_polling()
        super().connection_lost(exc)

    @override
    def handle_websocket_upgrade(self) -> None:
        self._client_connection.stop_polling()
        self._release()
        super().handle_websocket_upgrade()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data if self._in_body else _without_other_upgrade(data))
        if self._in_head and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse("request_header_fields_too_large")

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    @override
    def on_headers_complete(self) -> None:
        self._end_head()
        self._client_connection.stalled_after_seconds = MAX_STALL_SECONDS  # an export before may have changed it
        extensions: Any = {CONNECTION_EXTENSION: self._client_connection}
        self.scope["extensions"] = extensions
        self._in_body = True
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    @override
    def _unsupported_upgrade_warning(self) -> None:
        # The parser has left HTTP, and would read the body as a request: serve this request and no other.
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.transport.pause_reading()

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse("malformed", msg)

    def _release(self) -> None:
        if self._address is not None:
            self._limits.release(self._address)
            self._address = None

    def _expect_head(self) -> None:
        self._end_head()
        self._in_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._time_out)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _time_out(self) -> None:
        if self._is_responding():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._time_out)
        else:
            self._refuse("request_timeout")

    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, code: str, detail: str | None = None) -> None:
        """Close the connection with a problem, if the problem cannot be taken for the response to another request."""
        self._end_head()
        if not self._is_responding():
            self.transport.write(logged_raw_problem(code, detail))
        elif self._in_body and not self.pipeline and not self.cycle.response_started:
            self.cycle.disconnected = True  # its handler still runs, and may send nothing after the problem
            self.cycle.message_event.set()
            self.transport.write(logged_raw_problem(code, detail))
        self.transport.close()


def protocols(limits: ConnectionLimits) -> tuple[Any, Any]:
    """Return the factories of HTTP and WebSocket connections for uvicorn; each process has limits of its own."""
    return partial(HttpProtocol, limits=limits), partial(WebSocketProtocol, limits=limits)


def _without_other_upgrade(data: bytes) -> bytes:
    """Rename an `Upgrade` to other than WebSockets (RFC 9110, section 7.8): the parser would drop the body for it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return OTHER_UPGRADE.sub(b"\r\nx-upgrade:", head + end) + rest if b"pgrade" in head.lower() else data
