"""A Redis that refuses calls is unavailable, until it accepts writes again; a failover of Sentinel is followed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.core import redis as redis_client
from service.core.redis import RedisUnavailableError
from tests.conftest import make_settings
from tests.support.redis_server import RedisServer
from tests.support.serving import serving

WAIT_SECONDS = 20
# What makes Redis refuse writes, and what ends it. Connections of before stay open.
REFUSALS: dict[str, tuple[list[Any], list[Any]]] = {
    "a replica since a failover": (["replicaof", "127.0.0.1", "1"], ["replicaof", "no", "one"]),
    "out of memory": (["config", "set", "maxmemory", "1"], ["config", "set", "maxmemory", "0"]),
    "without a permission": (["acl", "setuser", "default", "-eval", "-set"], ["acl", "setuser", "default", "+@all"]),
    "too few replicas": (
        ["config", "set", "min-replicas-to-write", "1"],
        ["config", "set", "min-replicas-to-write", "0"],
    ),
}


@pytest.fixture(autouse=True)
def _impatient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(redis_client, "TIMEOUT_SECONDS", 1.0)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def operator(server: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client by which a test changes the server."""
    async with Redis.from_url(server.url) as operator:
        yield operator


async def until_available(client: redis_client.RedisClient) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await client.ping():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)


async def _set(redis: Redis) -> None:
    await redis.set("weather:of:moscow", "x")


async def _script(redis: Redis) -> None:
    await redis.eval("return redis.call('set', KEYS[1], '1')", 1, "limit:requests:1")


@pytest.mark.parametrize("work", [_set, _script])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_makes_redis_unavailable_until_it_accepts_writes(
    server: RedisServer, operator: Redis, refusal: str, work: Any
) -> None:
    begin, end = REFUSALS[refusal]
    async with redis_client.connected(server.url) as client:
        assert client
        await client.call(work)
        await operator.execute_command(*begin)  # type: ignore[no-untyped-call]
        with pytest.raises(RedisUnavailableError):
            await client.call(work)
        assert not client.available
        await asyncio.sleep(3 * redis_client.PROBE_SECONDS)
        assert not client.available
        await operator.execute_command(*end)  # type: ignore[no-untyped-call]
        await until_available(client)
        await client.call(work)


async def test_a_refusal_in_a_shared_round_trip_makes_redis_unavailable(server: RedisServer, operator: Redis) -> None:
    async with redis_client.connected(server.url) as client:
        assert client
        scripts = redis_client.Scripts(client)
        await operator.execute_command(*REFUSALS["out of memory"][0])  # type: ignore[no-untyped-call]
        text = "return redis.call('set', KEYS[1], '1')"
        runs = [scripts.run(text, keys=[f"limit:requests:{number}"], args=[]) for number in range(5)]
        results = await asyncio.gather(*runs, return_exceptions=True)
        assert {type(result) for result in results} == {RedisUnavailableError}
        assert not client.available


async def test_a_password_that_came_later_makes_redis_unavailable(server: RedisServer, operator: Redis) -> None:
    async with redis_client.connected(server.url) as client:
        assert client
        await operator.config_set("requirepass", "later")
        await client.call(lambda redis: redis.connection_pool.disconnect())
        with pytest.raises(RedisUnavailableError):
            await client.call(_set)
        assert not client.available


async def test_a_cluster_that_is_down_is_unavailable() -> None:
    with RedisServer("--cluster-enabled", "yes") as server:
        async with redis_client.connected(server.url) as client:
            assert client
            assert not client.available


async def test_readiness_is_degraded_while_redis_refuses(
    server: RedisServer, operator: Redis, database_url: str
) -> None:
    settings = make_settings(database_url, redis_url=server.url)
    async with serving(settings) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        await operator.execute_command(*REFUSALS["a replica since a failover"][0])  # type: ignore[no-untyped-call]
        assert (await client.get("/readyz")).json() == {"status": "degraded"}
        assert "task_manager_redis_away 1.0" in (await client.get("/metrics")).text


@contextmanager
def sentinel(folder: Path, master: RedisServer) -> Iterator[int]:
    """Run a sentinel of one master; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor tasks 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds tasks 300\nsentinel failover-timeout tasks 1000\n"
    )
    program = shutil.which("redis-server")
    assert program
    process = subprocess.Popen([program, str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server, which is a sentinel as well")
async def test_a_failover_of_sentinel_is_followed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer())
        replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(master.port)))
        port = stack.enter_context(sentinel(tmp_path, master))
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/tasks/2"
        async with Redis(port=port) as asked:
            async with asyncio.timeout(WAIT_SECONDS):
                while not await _knows_replica(asked):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        async with redis_client.connected(url) as client:
            assert client
            await until_available(client)
            await client.call(_set)
            master.kill()
            with pytest.raises(RedisUnavailableError):
                await client.call(_set)
            await until_available(client)
            await client.call(_set)
            async with Redis(port=replica.port, db=2) as other:
                assert await other.get("weather:of:moscow") == b"x"


async def _knows_replica(sentinel: Redis) -> bool:
    try:
        return bool(await sentinel.execute_command("sentinel", "replicas", "tasks"))  # type: ignore[no-untyped-call]
    except RedisError:  # it starts
        return False
