"""A connection on its socket: whether its peer takes what is sent to it, and frames that go out as they are."""

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

STALLED_SECONDS = 10.0
CLOSE_SECONDS = 3.0
POLL_SECONDS = 1.0
BYTES_ACKED = 120  # where Linux has it in its struct tcp_info
SEND_BUFFER = 128 * 1024
CONNECTION_EXTENSION = "service.wire"
"""The extension under which an ASGI scope carries its connection's Wire."""


def bound(listening: socket.socket) -> None:
    """Set what accepted connections inherit: the kernel holds little for a peer that does not read.

    No TCP_USER_TIMEOUT: it also ends a peer that reads, slowly, through a window that is often closed.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER // 2)  # the kernel doubles it


class ClientConnection:
    """A connection as a handler may use it: whether its peer takes what is sent, and whether the server stops.

    on_stuck: called where the peer has taken no byte for as long as `patience` while something waited to be sent.
    """

    def __init__(self, transport: asyncio.Transport, on_stuck: Callable[[], None]) -> None:
        self._transport = transport
        self._on_stuck = on_stuck
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self.wait_seconds = STALLED_SECONDS
        self._taken, self._moved_at = 0, self._loop.time()
        self._watch = self._loop.call_later(POLL_SECONDS, self._look)

    @cached_property
    def stopping(self) -> asyncio.Event:
        """Set where the server stops. Made at first use: a WebSocket is told otherwise, and there are many."""
        return asyncio.Event()

    @property
    def blocked(self) -> bool:
        """Whether what is sent now would wait behind much that waits already."""
        return self._paused or self._transport.is_closing()

    def write(self, data: bytes) -> bool:
        """Write bytes as they are; False, and nothing written, where they would wait."""
        transport = self._transport
        if self._paused or transport.is_closing():
            return False
        transport.write(data)
        return True

    def pause(self) -> None:
        """Note that much waits to be sent."""
        self._paused = True

    def resume(self) -> None:
        """Note that there is room again."""
        self._paused = False

    def ended(self) -> None:
        """Watch the peer no longer."""
        self._watch.cancel()

    def _look(self) -> None:
        waiting, taken = self._progress()
        now = self._loop.time()
        if not waiting or taken != self._taken:
            self._taken, self._moved_at = taken, now
        if now - self._moved_at >= self.wait_seconds:
            self._watch = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
            self._on_stuck()
        else:
            self._watch = self._loop.call_later(POLL_SECONDS, self._look)

    def _progress(self) -> tuple[int, int]:
        """Give how many bytes wait for the peer, and a number that is another one once it has taken some."""
        waiting = int(self._transport.get_write_buffer_size())
        taken = -waiting
        with suppress(OSError, NameError, AttributeError, struct.error):
            connection = self._transport.get_extra_info("socket")
            queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += struct.unpack("i", queued)[0]
            taken = -waiting
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 8)
            (taken,) = struct.unpack_from("Q", information, BYTES_ACKED)
        return waiting, taken
