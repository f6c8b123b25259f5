"""WebSockets on a socket: uvicorn's protocol, with bounds on what a client may send and hold."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import SecurityError

from service.api.connection import CONNECTION_EXTENSION, ClientConnection, ConnectionPoller
from service.api.connection_limits import ConnectionLimits
from service.api.problems import logged_raw_problem
from service.core.close_codes import INVALID_TEXT, NOTHING_READ, POLICY_VIOLATION

MAX_MESSAGE_BYTES = 64 * 1024
MAX_READ_BYTES = 8 * 1024
MAX_FRAMES, FRAME_WINDOW_SECONDS = 2000, 60.0
PING_INTERVAL_SECONDS = 20.0  # also the time in which the client must answer
PING_BYTES = 4
QUIET = logging.getLogger("uvicorn.error.sockets")  # at INFO uvicorn logs a WebSocket's query string
QUIET.setLevel(logging.WARNING)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The protocol of a WebSocket: bounds frames, ends a connection whose peer reads nothing, sends encoded frames."""

    client_connection: ClientConnection
    _address: str | None = None
    _window_started_at = float("-inf")
    _window_frames = 0

    def __init__(self, *arguments: Any, limits: ConnectionLimits, poller: ConnectionPoller, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = self.conn.logger = QUIET
        self._limits = limits
        self._poller = poller

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._address = self._limits.acquire(transport.get_extra_info("peername"))
        self.client_connection = ClientConnection(self.transport, self._poller, on_stall=self._close_stalled)

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
        self.client_connection.mark_written()
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
            self.client_connection.mark_written()

    @override
    def start_keepalive(self) -> None:
        self._poller.schedule_ping(self, delay_seconds=PING_INTERVAL_SECONDS)

    @override
    def stop_keepalive(self) -> None:
        self._poller.cancel_ping(self)

    def ping(self) -> None:
        """Send a ping, or end the connection if the one before was not answered."""
        if self.close_sent or self.transport.is_closing():
            return
        if self.pending_ping_payload is not None:
            self.keepalive_timeout()
            return
        payload = random.randbytes(PING_BYTES)  # noqa: S311 - it tells one ping from the next
        if self.client_connection.write(b"\x89%c%b" % (PING_BYTES, payload)):
            self.pending_ping_payload = payload
        self.start_keepalive()

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
