"""WebSockets on bare sockets, for clients that do not read, read slowly, or only send."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

RECEIVE_BUFFER = 8192
SEGMENT = 1460  # a network's; over loopback a small window opens only when it is empty
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@dataclass
class Raw:
    """A connection with a small receive buffer."""

    socket: socket.socket
    buffer: bytes = b""

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self, max_bytes: int = 65536) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.socket, max_bytes)
        self.buffer += data
        return data

    def frames(self) -> list[tuple[int, bytes]]:
        """Remove the complete frames from the buffer; return pairs of opcode and payload."""
        found, at, data = [], 0, self.buffer
        while len(data) >= at + 2:
            size, head = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, head = int.from_bytes(data[head : head + width], "big"), head + width
            if len(data) < head + size:
                break
            found.append((data[at] & 0x0F, data[head : head + size]))
            at = head + size
        self.buffer = data[at:]
        return found


async def dial(url: str, headers: dict[str, str]) -> tuple[Raw, dict[str, Any]]:
    """Open a WebSocket; return the connection and the first message, decoded from JSON."""
    host, port = urlsplit(url).netloc.split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    connection.setblocking(False)
    raw = Raw(connection)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    lines = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    lines |= {"Sec-WebSocket-Key": KEY} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    await raw.send(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
    while b"\r\n\r\n" not in raw.buffer:
        assert await raw.read()
    answer, _, raw.buffer = raw.buffer.partition(b"\r\n\r\n")
    assert b" 101 " in answer, answer
    while not (frames := raw.frames()):
        assert await raw.read()
    return raw, orjson.loads(frames[0][1])


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client frame of less than 126 bytes, masked with zeros."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload
