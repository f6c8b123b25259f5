"""A client's connection on its socket: whether its peer reads, and how bytes are written that are already encoded.

One timer serves all connections of a process. A timer and two system calls a second for each of 1,000 idle WebSockets
took 4 % of a core.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Protocol

with suppress(ImportError):  # Windows has neither
    import fcntl
    import termios

MAX_STALL_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 3.0
POLL_INTERVAL_SECONDS = 1.0
BYTES_ACKED_OFFSET = 120  # of `tcpi_bytes_acked` in Linux's struct tcp_info
SEND_BUFFER_BYTES = 128 * 1024
CONNECTION_EXTENSION = "service.connection"
"""The extension under which an ASGI scope carries its ClientConnection."""
CYCLE_EXTENSION = "service.cycle"
"""The extension under which an ASGI scope carries its RequestCycle, if the server offers one."""


def limit_send_buffer(listening: socket.socket) -> None:
    """Bound the bytes that the kernel holds for each accepted connection whose peer does not read.

    TCP_USER_TIMEOUT stays unset: it would also end a peer that reads slowly through a window that is often closed.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES // 2)  # the kernel doubles it


class RequestCycle(Protocol):
    """The server's side of one request: it reads a body and writes a response at once, in place of ASGI's messages."""

    def pop_body(self) -> bytes | None:
        """Return the whole body, if it has arrived and nobody has read of it."""

    def is_ready(self) -> bool:
        """Return whether the response can be written so."""

    def write(self, status: int, head: bytes, body: bytes) -> None:
        """Write a response; `head` has a line for each header."""


class Pingable(Protocol):
    """A connection that is pinged while it is open."""

    def ping(self) -> None:
        """Send a ping, or end the connection if the one before was not answered."""


class ConnectionPoller:
    """The timer of one process: it polls the connections that may have unsent bytes, and pings WebSockets.

    It runs once a second while there is any of either.
    """

    def __init__(self) -> None:
        self._polled: set[ClientConnection] = set()
        self._ping_times: dict[Pingable, float] = {}
        """When to ping, by the loop's clock; the first is due first, because all intervals have one length."""
        self._timer: asyncio.TimerHandle | None = None

    def poll(self, connection: ClientConnection) -> None:
        """Poll a connection until its peer has acknowledged every byte."""
        self._polled.add(connection)
        self._start()

    def forget(self, connection: ClientConnection) -> None:
        """Stop polling a connection."""
        self._polled.discard(connection)

    def schedule_ping(self, connection: Pingable, *, delay_seconds: float) -> None:
        """Ping a connection after the delay, in place of a ping that is scheduled already."""
        self.cancel_ping(connection)
        self._ping_times[connection] = asyncio.get_running_loop().time() + delay_seconds
        self._start()

    def cancel_ping(self, connection: Pingable) -> None:
        """Cancel the ping that is scheduled for a connection."""
        self._ping_times.pop(connection, None)

    def _start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_INTERVAL_SECONDS, self._run)

    def _run(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._polled):
            if not connection.poll(now):
                self._polled.discard(connection)
        due = list(takewhile(lambda one: self._ping_times[one] <= now, self._ping_times))
        for one in due:
            self.cancel_ping(one)
            one.ping()
        self._timer = None
        if self._polled or self._ping_times:
            self._start()


class ClientConnection:
    """The connection of a request or WebSocket, polled for progress of its peer while it may have unsent bytes.

    It calls `on_stall` if bytes wait to be sent and the peer acknowledges none for `stalled_after_seconds`. It aborts
    the connection CLOSE_TIMEOUT_SECONDS later. It is polled, too, while `is_responding` returns true.
    """

    __slots__ = (
        "_abort_timer",
        "_is_polled",
        "_is_responding",
        "_on_stall",
        "_poller",
        "_progress",
        "_progressed_at",
        "_stopping",
        "_transport",
        "is_paused",
        "stalled_after_seconds",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        poller: ConnectionPoller,
        *,
        on_stall: Callable[[], None],
        is_responding: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport = transport
        self._poller = poller
        self._on_stall = on_stall
        self._is_responding = is_responding
        self.is_paused = False
        """The transport's buffer is full."""
        self.stalled_after_seconds = MAX_STALL_SECONDS
        self._progress: int | None = None
        """What the last poll measured; None if all bytes were acknowledged."""
        self._progressed_at = 0.0
        self._is_polled = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def stopping(self) -> asyncio.Event:
        """The event that the server sets when it stops, for responses without an end.

        It is created at its first use, because no WebSocket needs it and there are many.
        """
        if self._stopping is None:
            self._stopping = asyncio.Event()
        return self._stopping

    @property
    def is_blocked(self) -> bool:
        """Return whether the connection accepts no more bytes now."""
        return self.is_paused or self._transport.is_closing()

    def write(self, data: bytes) -> bool:
        """Write bytes as they are, unless the connection is blocked; return whether it wrote them."""
        if self.is_paused or self._transport.is_closing():
            return False
        self._transport.write(data)
        if not self._is_polled:
            self.mark_written()
        return True

    def mark_written(self) -> None:
        """Poll the connection, because it may have unsent bytes from now on."""
        if not self._is_polled and self._abort_timer is None:
            self._is_polled = True
            self._poller.poll(self)

    def stop_polling(self) -> None:
        """Cancel the next poll, or the abort that a stall has scheduled."""
        self._poller.forget(self)
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def poll(self, now: float) -> bool:
        """Compare the peer's progress with the last poll's; return whether to poll again."""
        unsent = self._count_unsent()
        if not unsent:
            self._progress = None
            self._is_polled = self._is_responding()
            return self._is_polled
        progress = self._count_acknowledged(default=-unsent)
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if now - self._progressed_at < self.stalled_after_seconds:
            return True
        self._is_polled = False
        loop = asyncio.get_running_loop()
        self._abort_timer = loop.call_later(CLOSE_TIMEOUT_SECONDS, self._transport.abort)
        self._on_stall()
        return False

    def _count_unsent(self) -> int:
        """Return how many bytes the peer has not acknowledged."""
        unsent = int(self._transport.get_write_buffer_size())
        with suppress(OSError, NameError, AttributeError, struct.error):
            connection = self._transport.get_extra_info("socket")
            queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            unsent += struct.unpack("i", queued)[0]
        return unsent

    def _count_acknowledged(self, *, default: int) -> int:
        """Return how many bytes the peer has acknowledged in all, where the system counts them."""
        with suppress(OSError, AttributeError, struct.error):
            connection = self._transport.get_extra_info("socket")
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED_OFFSET + 8)
            return int(struct.unpack_from("Q", information, BYTES_ACKED_OFFSET)[0])
        return default
