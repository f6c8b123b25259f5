"""Frames that no browser sends: close frames with unread answers, empty frames, HEAD requests for streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from websockets.exceptions import InvalidStatus

from service.api.websocket_protocol import MAX_FRAMES
from tests.support.listeners import authorization, web_socket
from tests.support.raw import Raw, dial, masked
from tests.support.servers import Server, serving
from tests.support.writers import Sql, log_in, session

WAIT_SECONDS = 30
CUT_OFF_SECONDS = 15.0
GOODBYE = masked(0x8, (1000).to_bytes(2, "big"))
EVENTS = 400
WRITE = (
    "insert into tasks (user_id, title, description)"
    " select max(id), 'x', repeat('x', 3000) from users, generate_series(1, $1::int) as n group by n"
)
EMPTY = bytes([0x00, 0x80]) + bytes(4)


@pytest.fixture(scope="module")
def server(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    values = {"RATE_LIMIT_PER_MINUTE": "0", "MAX_SUBSCRIPTIONS_PER_USER": "10000"}
    with serving(tmp_path_factory.mktemp("server"), DATABASE_URL=module_database_url, **values) as server:
        yield server


async def administrator(sql: Sql) -> dict[str, str]:
    insert = "insert into users (username, password_hash, role) values ($1, '', 'admin') returning id"
    user_id = await sql.fetchval(insert, f"root-{uuid4().hex}")
    await log_in(sql, user_id)
    return authorization(user_id, "admin")


async def silent(server: Server, sql: Sql, headers: dict[str, str]) -> Raw:
    """Return a client that reads nothing, is sent more than its connection buffers, and has sent a close frame."""
    raw, _ = await dial(server.url, headers)
    async with asyncio.timeout(WAIT_SECONDS), web_socket(server.url, headers) as other:
        await other.recv()
        await sql.execute(WRITE, EVENTS)
        for _ in range(EVENTS):  # what another was sent, it was sent, too, as far as it went
            await other.recv()
    await raw.send(GOODBYE)
    return raw


async def test_a_client_that_closes_without_reading_the_answer_is_disconnected(
    server: Server, module_database_url: str
) -> None:
    process = psutil.Process(server.process.pid)
    async with session(module_database_url) as sql:
        raw = await silent(server, sql, await administrator(sql))
    closed_at = time.monotonic()
    while any(one.raddr and one.raddr.port == raw.port for one in process.net_connections("tcp")):
        assert time.monotonic() - closed_at < CUT_OFF_SECONDS + 1
        await asyncio.sleep(0.05)
    raw.socket.close()


async def test_a_client_that_closes_without_reading_the_answer_does_not_delay_the_stop(
    own_database_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, DATABASE_URL=own_database_url, RATE_LIMIT_PER_MINUTE="0") as server:
        async with session(own_database_url) as sql:
            headers = await administrator(sql)
            raw = await silent(server, sql, headers)
            async with web_socket(server.url, headers) as other:
                await other.recv()
                async with asyncio.timeout(WAIT_SECONDS):
                    assert await asyncio.to_thread(server.stop) == 0
                    await other.wait_closed()
                assert other.close_code == 1012
    raw.socket.close()


@pytest.mark.parametrize(
    "frames",
    [
        bytes([0x01, 0x80]) + bytes(4) + EMPTY * MAX_FRAMES,
        masked(0xA, b"") * MAX_FRAMES,
        masked(0x9, b"") * MAX_FRAMES,
    ],
    ids=["parts", "pongs", "pings"],
)
async def test_frames_without_content_end_the_connection(
    server: Server, module_database_url: str, frames: bytes
) -> None:
    async with session(module_database_url) as sql:
        raw, _ = await dial(server.url, await administrator(sql))
    seen: list[tuple[int, bytes]] = []
    async with asyncio.timeout(WAIT_SECONDS):
        await raw.send(frames + masked(0xA, b""))
        while await raw.read():
            seen += raw.frames()
    opcode, payload = seen[-1]
    assert (opcode, int.from_bytes(payload[:2], "big")) == (8, 1008)
    raw.socket.close()


async def test_a_stream_asked_for_by_head_ends_with_its_head(server: Server, module_database_url: str) -> None:
    async with session(module_database_url) as sql:
        headers = await administrator(sql)
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=WAIT_SECONDS) as client:
        head = await client.head("/events", headers={"Accept": "text/event-stream"})
        assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert (await client.get("/healthz")).status_code == 200  # on the same connection


async def test_a_malformed_origin_is_refused(server: Server, module_database_url: str) -> None:
    async with session(module_database_url) as sql:
        headers = await administrator(sql) | {"Origin": "http://["}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        assert (await client.get("/events")).status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        async with web_socket(server.url, headers):
            pass
    assert refused.value.response.status_code == 403
