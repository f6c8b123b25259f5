"""A TCP proxy before the database that a test opens and shuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gate:
    """A proxy that starts open; `url` is the database URL through it, `held` the number of messages held back."""

    def __init__(self, url: str) -> None:
        self.url = ""
        self.held = 0
        self._upstream = urlsplit(url)
        self._port = 0
        self._accepting: asyncio.Server | None = None
        self._closing = False
        self._flowing = asyncio.Event()
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Forward all connections."""
        self._closing = False
        self._flowing.set()
        if self._accepting is None:
            self._accepting = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
            self._port = self._accepting.sockets[0].getsockname()[1]
            user = self._upstream.netloc.rpartition("@")[0]
            self.url = urlunsplit(self._upstream._replace(netloc=f"{user}@127.0.0.1:{self._port}", query=""))

    async def shut(self, how: str) -> None:
        """Shut the gate: `refused` closes the port, `cut` aborts every connection, `silent` holds all data back."""
        self._closing = how != "silent"
        if how == "silent":
            self._flowing.clear()
            return
        if how == "refused" and self._accepting:
            self._accepting.close()
            self._accepting = None
        for end in self._ends:
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            writer.transport.abort()
            return
        upstream_reader, upstream_writer = await self._dial()
        self._ends |= {writer, upstream_writer}
        await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        self._ends -= {writer, upstream_writer}

    async def _dial(self) -> Streams:
        query = parse_qs(self._upstream.query)
        port = int(query.get("port", [self._upstream.port or 5432])[0])
        if folder := query.get("host"):
            return await asyncio.open_unix_connection(f"{folder[0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._upstream.hostname, port)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                self.held += not self._flowing.is_set()
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def gate(url: str) -> AsyncIterator[Gate]:
    """Yield an open gate before the database; close its port at the end."""
    gate = Gate(url)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.open()
        await gate.shut("refused")
