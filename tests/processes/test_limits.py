"""Rate limits of real processes, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.factories import PASSWORD
from tests.support.servers import Server, serving, until

ATTEMPTS = 3


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str
) -> Iterator[tuple[Server, Server]]:
    """Two processes with one database and one Redis."""
    values = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "LOGIN_LIMIT_PER_MINUTE": "0", "LOG_LEVEL": "DEBUG"}
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    with serving(one, **values) as first, serving(other, **values) as second:
        yield first, second


def token(server: Server) -> str:
    """Make an account."""
    body = {"username": uuid4().hex, "password": PASSWORD}
    with server.client() as http:
        assert http.post("/auth/register", json=body).status_code == 201
        return str(http.post("/auth/login", json=body).json()["access_token"])


def written(server: Server) -> None:
    """Wait until the log has all lines of before: those of a request of now come after them."""
    request_id = uuid4().hex
    with server.client() as http:
        http.get("/healthz", headers={"X-Request-ID": request_id})
    until(lambda: request_id in server.log())


async def at_once(servers: tuple[Server, ...], *, requests: int) -> tuple[list[int], float]:
    """Ask so often over all of them, and return the statuses and the seconds that it took."""
    headers = {"Authorization": f"Bearer {token(servers[0])}"}
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=30) as http:
        begun = time.monotonic()
        replies = await asyncio.gather(*(http.get(f"{servers[n % len(servers)].url}/tasks") for n in range(requests)))
        return [reply.status_code for reply in replies], time.monotonic() - begun


async def test_two_processes_share_one_budget(pair: tuple[Server, Server]) -> None:
    for _ in range(ATTEMPTS):
        before = [server.log().count("redis disconnected") for server in pair]
        statuses, seconds = await at_once(pair, requests=200)
        assert set(statuses) == {200, 429}
        for server in pair:
            written(server)
        if before == [server.log().count("redis disconnected") for server in pair]:
            break  # else this machine was too busy, and each process counted for itself, as it should
    assert 95 <= statuses.count(200) <= 100 + seconds / 0.6


def test_a_forged_address_changes_nothing_on_the_socket(tmp_path: Path, database_url: str) -> None:
    values = {"DATABASE_URL": database_url, "RATE_LIMIT_PER_MINUTE": "3"}
    with serving(tmp_path, **values) as server, server.client() as http:
        forged = [{"X-Forwarded-For": f"203.0.113.{n}", "Forwarded": f"for=203.0.113.{n}"} for n in range(6)]
        statuses = [http.get("/tasks", headers=one).status_code for one in forged]
    assert statuses == [401] * 3 + [429] * 3


def test_the_address_from_a_trusted_proxy_is_used_on_the_socket(tmp_path: Path, database_url: str) -> None:
    values = {"DATABASE_URL": database_url, "RATE_LIMIT_PER_MINUTE": "1", "TRUSTED_PROXIES": "127.0.0.0/8"}
    with serving(tmp_path, **values) as server, server.client() as http:
        clients = [{"X-Forwarded-For": f"198.51.100.9, 203.0.113.{n}"} for n in (1, 2, 1)]
        assert [http.get("/tasks", headers=one).status_code for one in clients] == [401, 401, 429]
