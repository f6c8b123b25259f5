"""A client's connection on its socket: whether its peer reads, and how bytes are written that are already encoded."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

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


def limit_send_buffer(listening: socket.socket) -> None:
    """Bound the bytes that the kernel holds for each accepted connection whose peer does not read.

    TCP_USER_TIMEOUT stays unset: it would also end a peer that reads slowly through a window that is often closed.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES // 2)  # the kernel doubles it


class ClientConnection:
    """The connection of a request or WebSocket, polled once a second for progress of its peer.

    It calls `on_stall` if bytes wait to be sent and the peer acknowledges none for `stalled_after_seconds`. It aborts
    the connection CLOSE_TIMEOUT_SECONDS later.
    """

    def __init__(self, transport: asyncio.Transport, on_stall: Callable[[], None]) -> None:
        self._transport = transport
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self.is_paused = False
        """The transport's buffer is full."""
        self.stalled_after_seconds = MAX_STALL_SECONDS
        self._progress, self._progressed_at = 0, self._loop.time()
        self._timer = self._loop.call_later(POLL_INTERVAL_SECONDS, self._poll)

    @cached_property
    def stopping(self) -> asyncio.Event:
        """The event that the server sets when it stops, for responses without an end.

        It is created at its first use, because no WebSocket needs it and there are many.
        """
        return asyncio.Event()

    @property
    def is_blocked(self) -> bool:
        """Return whether the connection accepts no more bytes now."""
        return self.is_paused or self._transport.is_closing()

    def write(self, data: bytes) -> bool:
        """Write bytes as they are, unless the connection is blocked; return whether it wrote them."""
        if self.is_blocked:
            return False
        self._transport.write(data)
        return True

    def stop_polling(self) -> None:
        """Cancel the next poll, or the abort that a stall has scheduled."""
        self._timer.cancel()

    def _poll(self) -> None:
        unsent, progress = self._measure()
        now = self._loop.time()
        if not unsent or progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if now - self._progressed_at >= self.stalled_after_seconds:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_SECONDS, self._transport.abort)
            self._on_stall()
        else:
            self._timer = self._loop.call_later(POLL_INTERVAL_SECONDS, self._poll)

    def _measure(self) -> tuple[int, int]:
        """Return how many bytes wait for the peer, and a number that changes whenever the peer has read some."""
        unsent = int(self._transport.get_write_buffer_size())
        progress = -unsent
        with suppress(OSError, NameError, AttributeError, struct.error):
            connection = self._transport.get_extra_info("socket")
            queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            unsent += struct.unpack("i", queued)[0]
            progress = -unsent
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED_OFFSET + 8)
            (progress,) = struct.unpack_from("Q", information, BYTES_ACKED_OFFSET)
        return unsent, progress
