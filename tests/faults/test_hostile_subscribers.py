"""Clients that stop reading, read slowly or flood the process neither hold much of it nor slow others down."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.listeners import Listener, authorization, web_socket
from tests.support.raw import Raw, dial, masked
from tests.support.servers import Server, serving
from tests.support.writers import log_in, session

WAIT_SECONDS = 30
STUCK = 40
TASKS = 1000
HELD_BYTES = 256 * 1024
OWN_BYTES = 16 * 1024 * 1024  # that does not come back to the system; a flood that is kept takes ten times that
CUT_OFF_SECONDS = 15.0
CLOSE, PING = 0x8, 0x9


@pytest.fixture
def server(own_database_url: str, tmp_path: Path) -> Iterator[Server]:
    with serving(
        tmp_path, DATABASE_URL=own_database_url, RATE_LIMIT_PER_MINUTE="0", MAX_SUBSCRIPTIONS_PER_USER="10000"
    ) as server:
        yield server


class Crowd:
    """One administrator with many connections to one process."""

    def __init__(self, url: str, server: Server) -> None:
        self.url = url
        self.server = server
        self.process = psutil.Process(server.process.pid)
        self.headers: dict[str, str] = {}
        self.user_id = 0
        self.max_bytes = 0

    async def sign_up(self) -> None:
        async with session(self.url) as sql:
            insert = "insert into users (username, password_hash, role) values ('root', '', 'admin') returning id"
            self.user_id = await sql.fetchval(insert)
            await log_in(sql, self.user_id)
        self.headers = authorization(self.user_id, "admin")

    async def write(self) -> None:
        """Write a thousand tasks in one statement."""
        async with session(self.url) as sql:
            await sql.execute(
                "insert into tasks (user_id, title, description) "
                "select $1, 'task ' || n, repeat('x', 3000) from generate_series(1, $2) as n",
                self.user_id,
                TASKS,
            )

    async def alone(self) -> int:
        """Return the maximal memory of the process for a thousand events and one reading subscriber, in bytes."""
        async with web_socket(self.server.url, self.headers) as quick:
            assert orjson.loads(await quick.recv())["type"] == "ready"
            for _ in range(2):
                await self.write()
                await self.read_all(quick)
        return self.max_bytes

    def rss(self) -> int:
        """Return the memory of the process in bytes, and keep the maximum in `max_bytes`."""
        now = int(self.process.memory_info().rss)
        self.max_bytes = max(self.max_bytes, now)
        return now

    def ports(self) -> set[int]:
        """The clients' ports that the process still has a socket for."""
        return {one.raddr.port for one in self.process.net_connections("tcp") if one.raddr}

    async def read_all(self, socket: Any) -> None:
        """Hear a thousand events, quickly."""
        async with asyncio.timeout(WAIT_SECONDS):
            ids: list[int] = []
            while len(ids) < TASKS:
                ids.append(orjson.loads(await socket.recv())["id"])
                if len(ids) % 50 == 0:
                    self.rss()
        assert ids == sorted(set(ids))
        self.rss()

    async def read_slowly(self, raw: Raw) -> list[int]:
        """Read some KB a second for longer than one that reads nothing is waited for, then the rest."""
        ids: list[int] = []
        begun = time.monotonic()
        async with asyncio.timeout(CUT_OFF_SECONDS + WAIT_SECONDS):
            while len(ids) < TASKS:
                slow = time.monotonic() - begun < CUT_OFF_SECONDS
                assert await raw.read(2048 if slow else 65536), f"cut off after {len(ids)} events"
                for opcode, payload in raw.frames():
                    if opcode == PING:
                        await raw.send(masked(0xA, payload))
                    else:
                        assert opcode == 1, payload
                        ids.append(orjson.loads(payload)["id"])
                self.rss()
                if slow:
                    await asyncio.sleep(0.5)  # the rate is what this is about
        return ids


async def test_a_subscriber_that_stops_reading_is_closed_and_resumes_and_a_slow_one_is_served(
    server: Server, own_database_url: str
) -> None:
    crowd = Crowd(own_database_url, server)
    await crowd.sign_up()
    before = await crowd.alone()
    stuck = [await dial(server.url, crowd.headers) for _ in range(STUCK)]
    slow, _ = await dial(server.url, crowd.headers)
    async with web_socket(server.url, crowd.headers) as quick:
        assert orjson.loads(await quick.recv())["type"] == "ready"
        reading = asyncio.create_task(crowd.read_slowly(slow))
        await crowd.write()
        await crowd.read_all(quick)
        written = time.monotonic()
        ports = {raw.port for raw, _ in stuck}
        assert ports <= crowd.ports(), "not even begun to wait for them"
        while ports & crowd.ports():
            assert time.monotonic() - written < CUT_OFF_SECONDS + 1
            crowd.rss()
            await asyncio.sleep(0.05)
        assert crowd.max_bytes - before < (STUCK + 1) * HELD_BYTES + OWN_BYTES, f"{(crowd.max_bytes - before) >> 10} KB"
        ids = await reading
        assert ids == sorted(set(ids))
        await crowd.write()
        await crowd.read_all(quick)  # nobody was cut off who reads
    raw, first = stuck[0]
    listener = Listener("poll", crowd.user_id, "admin", [server.url], random.Random(1), first["cursor"])
    while len(listener.heard) < 2 * TASKS:
        await listener.poll(0)
    assert [one["id"] for one in listener.heard] == sorted({one["id"] for one in listener.heard})
    for raw, _ in [*stuck, (slow, first)]:
        raw.socket.close()


@pytest.mark.parametrize("flood", [masked(PING, b"x" * 120), masked(1, b"{}")], ids=["pings", "messages"])
async def test_a_client_that_floods_and_does_not_read_costs_bounded_memory(
    server: Server, own_database_url: str, flood: bytes
) -> None:
    crowd = Crowd(own_database_url, server)
    await crowd.sign_up()
    before = await crowd.alone()
    raw, _ = await dial(server.url, crowd.headers)
    async with web_socket(server.url, crowd.headers) as quick:
        assert orjson.loads(await quick.recv())["type"] == "ready"
        sent = 0
        try:
            while sent < 24 * 1024 * 1024:
                async with asyncio.timeout(2):
                    await raw.send(flood * 512)
                sent += len(flood) * 512
                crowd.rss()
        except (TimeoutError, OSError):
            pass  # the process takes no more of it
        await crowd.write()
        await crowd.read_all(quick)
        assert crowd.max_bytes - before < HELD_BYTES + OWN_BYTES, (
            f"{(crowd.max_bytes - before) >> 10} KB of {sent >> 10} sent"
        )
    raw.socket.close()
