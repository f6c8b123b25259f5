"""With every slot for subscriptions in use, and with every open file used up, the service still answers."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.listeners import authorization
from tests.support.servers import Server, refusal, run, serving, until

FILES = 200  # of which 119 are shared out: 59 slots for subscriptions, 89 connections in all
SLOTS, CONNECTIONS = 59, 89
OTHER_ADDRESS, THIRD_ADDRESS = "127.0.0.2", "127.0.0.3"
WAIT_SECONDS = 20


@pytest.fixture
def server(tmp_path: Path, own_database_url: str) -> Iterator[Server]:
    """A server with few files, whose soft limit is lower still, with the default limits of subscriptions."""
    with psycopg.connect(own_database_url) as sql:
        sql.execute(
            "insert into users (id, username, password_hash) overriding system value"
            " select n, 'user-' || n, '' from generate_series(1, 12) as n"
        )
        sql.execute(
            "insert into sessions (id, user_id, expires_at, secret, refresh_hash) overriding system value"
            " select u.id, u.id, now() + interval '1 day', ''::bytea, sha256(u.id::text::bytea) from users as u"
        )
    with serving(tmp_path, open_files=f"64:{FILES}", DATABASE_URL=own_database_url) as server:
        until(lambda: server.status("/readyz") == 200)
        yield server


@asynccontextmanager
async def sockets() -> AsyncIterator[Sockets]:
    """Keep what a test opens until its end."""
    async with AsyncExitStack() as stack:
        yield Sockets(stack)


class Sockets:
    """WebSockets that stay open."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def open(self, server: Server, user_id: int | None, *, source: str = "127.0.0.1") -> ClientConnection:
        """Open a WebSocket; without a user nothing says who it is."""
        return await self._stack.enter_async_context(
            connect(
                f"ws://{urlsplit(server.url).netloc}/ws",
                additional_headers=authorization(user_id, "user") if user_id else {},
                local_addr=(source, 0),
                proxy=None,
                compression=None,
            )
        )

    async def outcome(self, server: Server, user_id: int, *, source: str = "127.0.0.1") -> int | str:
        """Open a WebSocket and return the type of its first message, or the code that it is closed with."""
        async with asyncio.timeout(WAIT_SECONDS):
            socket = await self.open(server, user_id, source=source)
            try:
                return "ready" if '"ready"' in str(await socket.recv()) else "other"
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 0


def answers(server: Server) -> list[int]:
    """Return the statuses of a health check and of an ordinary request."""
    with server.client(authorization(1, "user")["Authorization"].removeprefix("Bearer ")) as http:
        return [http.get("/healthz").status_code, http.get("/tasks").status_code]


def stream(server: Server, user_id: int, *, source: str = "127.0.0.1") -> httpx.Response:
    """Ask for an event stream that is refused."""
    transport = httpx.HTTPTransport(local_address=source)
    headers = authorization(user_id, "user") | {"Accept": "text/event-stream"}
    with httpx.Client(transport=transport, base_url=server.url, headers=headers) as http:
        return http.get("/events")


def refused(server: Server) -> dict[str, float]:
    """Return the counts of `connections_refused` by bound."""
    text = httpx.get(f"{server.url}/metrics").text
    return {
        bound: float(value) for bound, value in re.findall(r'connections_refused_total\{bound="(\w+)"\} (\S+)', text)
    }


async def test_accounts_of_one_address_do_not_shut_others_out(server: Server) -> None:
    async with sockets() as opened:
        outcomes = [await opened.outcome(server, user) for user in range(1, 10) for _ in range(25)]
        assert outcomes.count("ready") == SLOTS // 2
        assert set(outcomes) == {"ready", 1008}
        assert answers(server) == [200, 200]
        assert await opened.outcome(server, 12, source=OTHER_ADDRESS) == "ready"
    counts = refused(server)
    assert counts["user_subscriptions"] == 5
    assert counts["address_subscriptions"] == 9 * 25 - SLOTS // 2 - 5
    until(lambda: server.log().count("connections refused bound=address_subscriptions") == 1)
    until(lambda: server.log().count("connections refused bound=user_subscriptions") == 1)


async def test_requests_are_served_while_every_slot_is_in_use(server: Server) -> None:
    async with sockets() as opened:
        for user, source, count in ((1, "127.0.0.1", 20), (2, OTHER_ADDRESS, 20), (3, THIRD_ADDRESS, 19)):
            for _ in range(count):
                assert await opened.outcome(server, user, source=source) == "ready"
        assert await opened.outcome(server, 12) == 1013
        full = stream(server, 12)
        assert full.status_code == 503
        assert int(full.headers["Retry-After"]) > 0
        assert full.json()["code"] == "unavailable"
        assert answers(server) == [200, 200]
    until(lambda: "task_manager_event_subscribers 0.0" in httpx.get(f"{server.url}/metrics").text)
    async with sockets() as opened:
        assert await opened.outcome(server, 12) == "ready"


async def test_a_user_has_so_many_sockets_and_streams_together(server: Server) -> None:
    async with sockets() as opened:
        for _ in range(20):
            assert await opened.outcome(server, 1) == "ready"
        assert await opened.outcome(server, 1, source=OTHER_ADDRESS) == 1008
        full = stream(server, 1, source=OTHER_ADDRESS)
        assert full.status_code == 429
        assert int(full.headers["Retry-After"]) > 0
        assert full.json()["code"] == "rate_limited"
        assert await opened.outcome(server, 2) == "ready"


async def test_unauthenticated_sockets_count_for_their_address(server: Server) -> None:
    async with sockets() as opened:
        for _ in range(SLOTS // 2):
            await opened.open(server, None)
        assert await opened.outcome(server, 1) == 1008
        assert stream(server, 1).status_code == 429
        assert await opened.outcome(server, 1, source=OTHER_ADDRESS) == "ready"


async def test_connections_without_a_request_do_not_shut_others_out(server: Server) -> None:
    opened = [await asyncio.open_connection(*netloc(server)) for _ in range(FILES)]
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            told = await opened[-1][0].read()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in told
        assert b'"code":"unavailable"' in told
        transport = httpx.AsyncHTTPTransport(local_address=OTHER_ADDRESS)
        async with httpx.AsyncClient(transport=transport, base_url=server.url) as http:
            assert (await http.get("/healthz")).status_code == 200
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)
    until(lambda: server.status("/healthz") == 200)
    assert refused(server)["address_connections"] >= FILES - CONNECTIONS // 2
    until(lambda: server.log().count("connections refused bound=address_connections") == 1)


def netloc(server: Server) -> tuple[str, int]:
    """Return host and port."""
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def test_a_process_that_cannot_accept_connections_logs_it(server: Server) -> None:
    process = server.process.pid
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, FILES))  # which standard input and output have
    until(lambda: "connections refused bound=descriptors" in server.log())
    resource.prlimit(process, resource.RLIMIT_NOFILE, (FILES, FILES))
    until(lambda: server.status("/healthz") == 200)
    assert refused(server)["descriptors"] >= 1


def test_too_few_files_stop_the_start(tmp_path: Path, own_database_url: str) -> None:
    ended = run(tmp_path, "serve", open_files="100:100", DATABASE_URL=own_database_url)
    assert "the process may open 100 files (`ulimit -n`), and needs at least 113" in refusal(ended)
