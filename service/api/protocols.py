"""HTTP/1.1 on a socket: uvicorn's protocol, with bounds on what a client may hold."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from websockets import http11

from service.api.connection import (
    CONNECTION_EXTENSION,
    CYCLE_EXTENSION,
    MAX_STALL_SECONDS,
    ClientConnection,
    ConnectionPoller,
)
from service.api.connection_limits import RETRY_SECONDS, ConnectionLimits
from service.api.problems import logged_raw_problem, raw_problem
from service.api.websocket_protocol import WebSocketProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_SECONDS = 10
REST_OF_BODY_SECONDS = 30.0  # that nobody reads, because the response came first
INCOMPLETE_RESPONSE = "ASGI callable returned without completing response."  # ours end so on purpose, and log why
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != INCOMPLETE_RESPONSE)
UPGRADE = re.compile(rb"\n[uU][pP]")
OTHER_UPGRADE = re.compile(rb"\r\nupgrade:(?![ \t]*websocket[ \t]*\r\n)", re.IGNORECASE)
http11.MAX_LINE_LENGTH = MAX_HEAD_BYTES  # of a handshake: HttpProtocol has bounded its head already


class Trailers(list[tuple[bytes, bytes]]):
    """The trailer fields of a chunked body, which no route defines: none is kept (RFC 9110, section 6.5.1)."""

    @override
    def append(self, field: tuple[bytes, bytes]) -> None:
        """Drop a field."""


class DirectCycle:
    """Reads a body and writes a response at once.

    uvicorn's two messages, with a check of each header, take 20 µs more, and waiting for a body that is there takes 10.
    Both are switched off by leaving this out of the scope's extensions.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def pop_body(self) -> bytes | None:
        """Return the whole body, if it has arrived and nobody has read of it."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete or not cycle.message_event.is_set():
            return None
        cycle.message_event.clear()
        cycle.waiting_for_100_continue = False
        cycle.flow.resume_reading()
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def is_ready(self) -> bool:
        """Return whether the client can take a response now and reads on after it."""
        cycle = self._cycle
        return not (
            cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
            or cycle.transport.is_closing()
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
        )

    def write(self, status: int, head: bytes, body: bytes) -> None:
        """Write a response; `head` has a line for each header."""
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        lines = [b"%b: %b\r\n" % header for header in cycle.default_headers]
        cycle.transport.write(b"".join([STATUS_LINE[status], *lines, head, b"\r\n", body]))
        cycle.message_event.set()
        cycle.on_response()


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

    def __init__(self, *arguments: Any, limits: ConnectionLimits, poller: ConnectionPoller, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._poller = poller

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(transport)
        self._client_connection = ClientConnection(
            transport, self._poller, on_stall=transport.abort, is_responding=self._is_responding
        )
        self._address = self._limits.acquire(transport.get_extra_info("peername"))
        if self._address is not None:
            self._time_head()
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
            elif self._head_timer is None and not self.transport.is_closing():
                self._time_head()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end_head()
        self._in_head, self._head_bytes = True, 0

    @override
    def on_headers_complete(self) -> None:
        self._end_head()
        self._client_connection.stalled_after_seconds = MAX_STALL_SECONDS  # an export before may have changed it
        extensions: Any = {CONNECTION_EXTENSION: self._client_connection}
        self.scope["extensions"] = extensions
        self._in_body = True
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = Trailers()  # what the parser appends to from now on; the scope has the header fields
        extensions[CYCLE_EXTENSION] = DirectCycle(self.cycle)
        self._client_connection.mark_written()  # until the response is complete

    @override
    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_head_timer()  # of a body whose response came first
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self._head_timer is None:
            self._head_timer = self.loop.call_later(REST_OF_BODY_SECONDS, self.transport.close)

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

    def _time_head(self) -> None:
        """Start the timer of a head that did not arrive as a whole, which few do not."""
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._time_out)

    def _end_head(self) -> None:
        self._in_head = False
        self._stop_head_timer()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

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
    """Return the factories of HTTP and WebSocket connections for uvicorn; each process has its own."""
    poller = ConnectionPoller()
    return (
        partial(HttpProtocol, limits=limits, poller=poller),
        partial(WebSocketProtocol, limits=limits, poller=poller),
    )


def _without_other_upgrade(data: bytes) -> bytes:
    """Rename an `Upgrade` to other than WebSockets (RFC 9110, section 7.8): the parser would drop the body for it."""
    if not UPGRADE.search(data):  # of nearly all requests: 0.5 µs, where a copy of the head in lower case took 1.4
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return OTHER_UPGRADE.sub(b"\r\nx-upgrade:", head + end) + rest
