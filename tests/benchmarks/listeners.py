"""Many WebSockets in one cheap process of their own: what they hear is counted and timed, and hardly read."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

AT_ONCE = 50
EVENT = re.compile(rb'\{"id":(\d+),.*?"at":"([^"]+)"')
TEXT, CLOSE, PING = 0x81, 0x88, 0x89


class _Listeners:
    """Sockets on one epoll; a parent asks for more of them, and for the times."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._address = address
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        self._made_at: dict[bytes, float] = {}
        self._late = array("d")
        self._ready = self._lost = 0
        self._head = (
            "GET /ws HTTP/1.1\r\nHost: load\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()

    def serve(self, parent: Connection) -> None:
        """Do what the parent says until it is gone."""
        self._epoll.register(parent.fileno(), select.EPOLLIN)
        wanted: deque[int] = deque()
        while True:
            for number, _ in self._epoll.poll():
                if number != parent.fileno():
                    self._read(number)
                    continue
                try:
                    order = parent.recv()
                except EOFError:
                    return
                if order is None:
                    parent.send((self._late.tobytes(), self._lost))
                    self._late = array("d")
                else:
                    wanted.append(order)
            while wanted and len(self._sockets) < wanted[0] and len(self._sockets) - self._ready < AT_ONCE:
                self._connect()
            if wanted and self._ready >= wanted[0]:
                parent.send(wanted.popleft())

    def _connect(self) -> None:
        one = socket.create_connection(self._address)
        one.sendall(self._head)
        one.setblocking(False)
        self._sockets[one.fileno()] = one
        self._rest[one.fileno()] = b""
        self._epoll.register(one.fileno(), select.EPOLLIN)

    def _read(self, number: int) -> None:
        data = self._sockets[number].recv(1 << 18)
        now = time.time()
        if not data:
            self._lost += 1
            self._epoll.unregister(number)
            return
        if self._rest[number]:
            data = self._rest[number] + data
        if data.startswith(b"HTTP/"):
            head, _, data = data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
        while len(data) >= 2:
            size, start = data[1], 2
            if size == 126:
                size, start = int.from_bytes(data[2:4], "big"), 4
            if len(data) < start + size:
                break
            self._frame(number, data[0], data[start : start + size], now)
            data = data[start + size :]
        self._rest[number] = data

    def _frame(self, number: int, kind: int, body: bytes, now: float) -> None:
        if kind == PING:
            self._sockets[number].send(bytes([0x8A, 0x80 | len(body), 0, 0, 0, 0]) + body)
        elif kind == TEXT and body.startswith(b'{"id":'):
            key = body[:24]
            if key not in self._made_at:
                found = EVENT.match(body)
                assert found
                self._made_at[key] = datetime.fromisoformat(found[2].decode()).timestamp()
            self._late.append(now - self._made_at[key])
        elif kind == TEXT:
            self._ready += 1


def _run(parent: Connection, address: tuple[str, int], token: str, core: int) -> None:
    os.sched_setaffinity(0, {core})
    _Listeners(address, token).serve(parent)


class Crowd:
    """The listeners, seen from the process that measures."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def grow(self, number: int) -> None:
        """Connect until there are so many, and all have heard `ready`."""
        self._pipe.send(number)
        assert self._pipe.recv() == number

    def heard(self, number: int, *, seconds: float) -> list[float]:
        """Wait for so many events; return the seconds from each one's change to its arrival."""
        late, deadline = array("d"), time.monotonic() + seconds
        while len(late) < number and time.monotonic() < deadline:
            time.sleep(0.2)
            self._pipe.send(None)
            more, lost = self._pipe.recv()
            assert not lost, f"{lost} connections were lost"
            late.frombytes(more)
        assert len(late) == number, f"{len(late)} of {number}"
        return sorted(late)


@contextmanager
def crowd(address: tuple[str, int], token: str, *, core: int) -> Iterator[Crowd]:
    """Start the process; it ends with this."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process: Any = context.Process(target=_run, args=(its, address, token, core), daemon=True)
    process.start()
    its.close()
    try:
        yield Crowd(mine)
    finally:
        process.terminate()
        process.join()
