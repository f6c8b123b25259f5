"""What a process leaves that is killed in the middle of its work."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.problems import problem
from tests.support.provider import KEY, Provider
from tests.support.servers import Server, serving
from tests.support.weather import Start, until

WRITERS = 8
GUARDED: dict[str, Any] = {"json": {"title": "x", "city": "Moscow"}, "headers": {"Idempotency-Key": "k"}}
ACCOUNT = {"username": "ada", "password": "correct horse battery staple"}


def token(server: Server) -> str:
    with server.client() as client:
        client.post("/auth/register", json=ACCOUNT).raise_for_status()
        return str(client.post("/auth/login", json=ACCOUNT).raise_for_status().json()["access_token"])


def sent(client: httpx.Client, key: str) -> httpx.Response:
    """Ask for one task, or for three."""
    one: dict[str, Any] = {"title": key}
    path, body = ("/tasks/bulk", {"tasks": [one] * 3}) if key.endswith("0") else ("/tasks", one)
    return client.post(path, json=body, headers={"Idempotency-Key": key})


def writing(server: Server, access_token: str, name: str, answered: Callable[[], None]) -> dict[str, bytes | None]:
    """Send request after request as long as the process lives; return the answers, None for what had none."""
    answers: dict[str, bytes | None] = {}
    with server.client(access_token) as client:
        for n in range(10_000):
            answers[f"{name}-{n}"] = None
            try:
                answers[f"{name}-{n}"] = sent(client, f"{name}-{n}").raise_for_status().content
            except httpx.TransportError:
                break
            answered()
    return answers


def test_requests_sent_to_a_killed_process_take_effect_once(own_database_url: str, tmp_path: Path) -> None:
    answers: dict[str, bytes | None] = {}
    done: list[None] = []
    with serving(tmp_path, DATABASE_URL=own_database_url, RATE_LIMIT_PER_MINUTE="0") as server:
        access_token = token(server)

        def answered() -> None:
            done.append(None)
            if len(done) == 200:
                server.process.send_signal(signal.SIGKILL)

        with ThreadPoolExecutor(WRITERS) as pool:
            for some in pool.map(lambda n: writing(server, access_token, f"writer-{n}", answered), range(WRITERS)):
                answers |= some
    cut_off = [key for key, answer in answers.items() if answer is None]
    assert cut_off
    with psycopg.connect(own_database_url) as sql:  # which takes 15 s and the weather's budget
        sql.execute("update idempotency_keys set claimed_until = now() where status is null")
    with (
        serving(tmp_path, DATABASE_URL=own_database_url, RATE_LIMIT_PER_MINUTE="0") as server,
        server.client(access_token) as client,
    ):
        for key, answer in answers.items():
            again = sent(client, key)
            assert again.status_code == 201, again.text
            assert answer is None or (again.content, again.headers["Idempotency-Replayed"]) == (answer, "true")
    with psycopg.connect(own_database_url) as sql:
        made: dict[str, int] = dict(sql.execute("select t.title, count(*) from tasks as t group by t.title").fetchall())
    assert made == {key: 3 if key.endswith("0") else 1 for key in answers}


async def test_a_process_that_is_killed_leaves_no_half_state(
    start: Start, provider: Provider, database_url: str, tmp_path: Path
) -> None:
    async def asked() -> bool:
        return len(provider.calls) == 1

    provider.mode = "held"
    async with start() as make:
        ada = await make.user()
        settings = {"OPENWEATHER_API_KEY": KEY, "OPENWEATHER_URL": provider.url, "WEATHER_TIMEOUT_SECONDS": "30"}
        context = serving(tmp_path, DATABASE_URL=database_url, **settings)
        server = await asyncio.to_thread(context.__enter__)
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=60, headers=ada.client.headers) as client:
                first = asyncio.create_task(client.post("/tasks", **GUARDED))
                await until(asked)
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                with pytest.raises(httpx.TransportError):
                    await first
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
        provider.mode = "ok"
        assert await make.sql.fetchval("select count(*) from tasks") == 0
        problem(await ada.client.post("/tasks", **GUARDED), 409)
        lease = await make.sql.fetchval(
            "select extract(epoch from claimed_until - now())::float8 from idempotency_keys"
        )
        assert 0 < lease < 60
        await make.sql.execute("update idempotency_keys set claimed_until = now()")
        made = await ada.client.post("/tasks", **GUARDED)
        assert (made.status_code, "Idempotency-Replayed" in made.headers) == (201, False)
        assert (await ada.client.post("/tasks", **GUARDED)).content == made.content
        assert await make.sql.fetchval("select count(*) from tasks") == 1
