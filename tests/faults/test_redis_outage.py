"""Requests use the limit of their process while Redis is unavailable or slow, and the shared one after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from service.core import redis as redis_client
from service.core.redis import TIMEOUT_SECONDS, RedisClient, RedisUnavailableError
from service.ratelimit.limiter import RateLimiter
from tests.conftest import make_settings
from tests.support.clocks import stopped_clock
from tests.support.redis_server import RedisServer
from tests.support.serving import serving

WAIT_SECONDS = 20
BUSY_SECONDS = 3.0  # what a request may take on a busy machine, beside the budget
GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b":many\r\n",
    b"$x\r\n",
    b"\xff\x00\r\n",
    b"+OK\r\n",
    b"*1\r\n$-1\r\n",
    b"",
]


@pytest.fixture(autouse=True)
def impatient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "PROBE_SECONDS", 0.1)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def limited(url: str, *, per_minute: int = 100) -> AsyncIterator[tuple[RateLimiter, RedisClient]]:
    async with redis_client.connected(url) as client:
        assert client
        yield RateLimiter("requests", per_minute, client), client


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def admitted(limit: RateLimiter, count: int, *, key: str = "ada") -> int:
    """How many of so many at once are admitted, none of which waits."""
    begun = time.monotonic()
    verdicts = await asyncio.gather(*(limit.check(key) for _ in range(count)))
    assert time.monotonic() - begun < TIMEOUT_SECONDS + BUSY_SECONDS
    return sum(not verdict.retry_after for verdict in verdicts)


async def test_requests_admitted_before_redis_was_killed_still_count(server: RedisServer) -> None:
    with stopped_clock() as clock:
        async with limited(server.url) as (limit, client):
            assert await admitted(limit, 85) == 85
            server.kill()
            assert await admitted(limit, 50) == 15
            assert await admitted(limit, 50) == 0
            assert not client.available
            clock.pass_by(6_001)
            assert await admitted(limit, 50) == 10
            server.start()
            await until(client.ping)
            assert await admitted(limit, 50) == 0
            clock.pass_by(6_001)
            assert await admitted(limit, 50) == 10


async def test_replicas_share_one_limit_again_when_redis_returns(server: RedisServer) -> None:
    with stopped_clock() as clock:
        async with limited(server.url) as (one, its), limited(server.url) as (other, others):
            assert await admitted(one, 100) + await admitted(other, 100) == 100
            server.kill()
            clock.pass_by(60_001)
            assert await admitted(one, 150) == await admitted(other, 150) == 100
            server.start()
            await until(its.ping)
            await until(others.ping)
            clock.pass_by(60_001)
            assert await admitted(one, 100) + await admitted(other, 100) == 100


async def test_a_refusal_of_redis_does_not_outlive_it(server: RedisServer) -> None:
    with stopped_clock():
        async with limited(server.url) as (one, _), limited(server.url) as (other, client):
            assert await admitted(one, 100) == 100
            assert await admitted(other, 1) == 0
            server.kill()
            assert not await client.ping()
            assert await admitted(other, 200) == 100


@pytest.mark.parametrize("keys", [1, 200])
async def test_a_hanging_redis_costs_its_timeout_once(server: RedisServer, keys: int) -> None:
    async with limited(server.url) as (limit, client), Redis.from_url(server.url) as pause:
        await limit.check("ada")
        await pause.client_pause(4_000)
        begun = time.monotonic()
        await asyncio.gather(*(limit.check(f"user:{n % keys}") for n in range(200)))
        assert TIMEOUT_SECONDS <= time.monotonic() - begun < TIMEOUT_SECONDS + BUSY_SECONDS
        assert not client.available
        begun = time.monotonic()
        for n in range(200):
            await limit.check(f"user:{n}")
        assert time.monotonic() - begun < BUSY_SECONDS
        await until(client.ping)


async def test_a_redis_that_is_slow_each_time_is_not_tried_again_by_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each answer takes longer than the budget, but not longer than a probe waits."""
    monkeypatch.setattr(redis_client, "PROBE_SECONDS", 10 * TIMEOUT_SECONDS)
    answered = 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while await reader.read(65536):
            await asyncio.sleep(3 * TIMEOUT_SECONDS)
            writer.write(b"+PONG\r\n")
            answered += 1
        writer.close()

    async with listening(slowly) as url, redis_client.connected(url) as client:
        assert client
        assert not client.available
        async with asyncio.timeout(WAIT_SECONDS):
            while answered < 5:
                assert not client.available
                await asyncio.sleep(0.01)


async def test_a_busy_process_does_not_take_redis_for_slow(server: RedisServer) -> None:
    async def busy(limit: RateLimiter, n: int) -> None:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        await limit.check(f"user:{n}")

    async with limited(server.url) as (limit, client):
        await asyncio.gather(*(busy(limit, n) for n in range(300)))
        assert client.available


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that is not Redis."""
    accepting = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{accepting.sockets[0].getsockname()[1]}/0"
    accepting.close()


async def test_a_call_that_is_cancelled_ends_wherever_it_is(server: RedisServer) -> None:
    loop, under_way = asyncio.get_running_loop(), []

    def cancel(call: asyncio.Task[bool], cycles: int) -> None:
        """Cancel the call when the event loop has come round so often."""
        if cycles:
            loop.call_soon(cancel, call, cycles - 1)
        elif call.cancel():
            under_way.append(call)

    async with redis_client.connected(server.url) as client:
        assert client
        for cycles in range(50):  # a call takes fewer
            call = asyncio.create_task(client.call(lambda redis: redis.ping()))
            cancel(call, cycles)
            await asyncio.wait([call])
        assert len(under_way) > 3
        assert all(call.cancelled() for call in under_way)
        assert await client.ping()


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_server_that_is_not_redis_is_ignored(garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while garbage and await reader.read(65536):
            writer.write(garbage)
        writer.close()

    async with listening(answer) as url, limited(url, per_minute=20) as (limit, _):
        assert await admitted(limit, 50) == 20


async def test_a_redis_with_a_wrong_password_is_ignored_until_it_is_right(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as dba:
        await dba.config_set("requirepass", "secret")
        async with limited(server.url.replace("//", "//:wrong@"), per_minute=20) as (limit, client):
            assert not client.available
            assert await admitted(limit, 50) == 20
            await dba.config_set("requirepass", "wrong")
            await until(client.ping)


async def test_no_call_is_sent_while_redis_is_unavailable() -> None:
    async with redis_client.connected("redis://127.0.0.1:1/0") as client:
        assert client
        asked = []

        async def ask(redis: Redis) -> None:
            asked.append(redis)

        with pytest.raises(RedisUnavailableError):
            await client.call(ask)
        assert not asked


async def health(client: httpx.AsyncClient) -> str:
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    return str(answer.json()["status"])


async def says(client: httpx.AsyncClient, expected: str) -> None:
    async def has_status() -> bool:
        return await health(client) == expected

    await until(has_status)


async def test_a_service_starts_without_redis_and_uses_it_when_it_returns(
    server: RedisServer, database_url: str
) -> None:
    server.kill()
    async with serving(make_settings(database_url, redis_url=server.url, rate_limit_per_minute=5)) as client:
        assert await health(client) == "degraded"
        assert [(await client.get("/tasks")).status_code for _ in range(6)] == [401] * 5 + [429]
        server.start()
        await says(client, "ok")
        async with Redis.from_url(server.url) as redis:
            await client.get("/tasks", headers={"Authorization": "Bearer none"})
            assert not await redis.keys("limit:*")  # its own count still refuses


async def test_readiness_detects_a_redis_outage_without_other_requests(server: RedisServer, database_url: str) -> None:
    async with serving(make_settings(database_url, redis_url=server.url)) as client:
        assert await health(client) == "ok"
        server.kill()
        assert await health(client) == "degraded"
        server.start()
        await says(client, "ok")


async def test_no_request_fails_or_waits_while_redis_is_killed_and_started_again(
    server: RedisServer, database_url: str
) -> None:
    over = asyncio.Event()

    async with serving(make_settings(database_url, redis_url=server.url, rate_limit_per_minute=100)) as client:
        max_seconds, seen = 0.0, []

        async def ask() -> None:
            nonlocal max_seconds
            while not over.is_set():
                begun = time.monotonic()
                seen.append((await client.get("/tasks")).status_code)
                max_seconds = max(max_seconds, time.monotonic() - begun)
                await asyncio.sleep(0)  # a refusal waits for nothing, and would let nobody else run

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask())
            begun = time.monotonic()
            for _ in range(3):
                server.kill()
                await says(client, "degraded")
                server.start()
                await says(client, "ok")
            over.set()
        assert set(seen) == {401, 429}
        assert 100 <= seen.count(401) <= 100 + (time.monotonic() - begun) / 0.6 + 1
        assert max_seconds < TIMEOUT_SECONDS + BUSY_SECONDS
