"""A request with an Idempotency-Key while it looks the weather up: sent again, taken over, killed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import backfill
from tests.api.problems import problem
from tests.factories import User
from tests.process.servers import serving
from tests.weather.conftest import Start, until
from tests.weather.provider import KEY, Provider, temperature

SENT = {"title": "x", "city": "Moscow"}
HEADERS = {"Idempotency-Key": "k"}


@pytest.fixture(autouse=True)
def _no_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every call is a request's own."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(backfill, "run", never)


async def send(user: User) -> httpx.Response:
    return await user.client.post("/tasks", json=SENT, headers=HEADERS)


def asked(provider: Provider, times: int) -> Any:
    async def enough() -> bool:
        return len(provider.calls) == times

    return enough


async def test_the_weather_is_not_asked_for_twice(start: Start, provider: Provider) -> None:
    async with start(weather_timeout_seconds=10, weather_cache_seconds=0) as make:
        ada = await make.user()
        first, second = await send(ada), await send(ada)
        assert first.json()["weather"]["temperature"] == temperature("Moscow")
        assert first.content == second.content
        assert second.headers["Idempotency-Replayed"] == "true"
        assert "weather" not in second.headers["Server-Timing"]
    assert provider.cities == ["Moscow"]


async def test_while_the_first_runs_the_next_is_told_so(start: Start, provider: Provider) -> None:
    provider.mode = "held"
    async with start(weather_timeout_seconds=30, database_pool_size=1) as make:
        ada = await make.user()
        first = asyncio.create_task(send(ada))
        await until(asked(provider, 1))
        assert problem(await send(ada), 409)["code"] == "conflict"
        other = await ada.client.post("/tasks", json={"title": "y"}, headers=HEADERS)
        problem(other, 422, pointers={"/header/idempotency-key"})
        provider.released.set()
        assert (await first).status_code == 201
        assert (await send(ada)).content == (await first).content
        assert await make.sql.fetchval("select count(*) from tasks") == 1


async def test_who_was_taken_for_dead_makes_nothing(start: Start, provider: Provider) -> None:
    provider.mode = "held"
    async with start(weather_timeout_seconds=30) as make:
        ada = await make.user()
        slow = asyncio.create_task(send(ada))
        await until(asked(provider, 1))
        await make.sql.execute("update idempotency_keys set claimed_until = now()")
        heir = asyncio.create_task(send(ada))

        async def taken_over() -> bool:
            return bool(await make.sql.fetchval("select claimed_until > now() from idempotency_keys"))

        await until(taken_over)
        provider.released.set()
        problem(await slow, 409)
        assert (await heir).status_code == 201
        assert await make.sql.fetchval("select count(*) from tasks") == 1
        assert (await send(ada)).content == (await heir).content


async def test_a_process_that_is_killed_leaves_no_half_state(
    start: Start, provider: Provider, database_url: str, tmp_path: Path
) -> None:
    provider.mode = "held"
    async with start() as make:
        ada = await make.user()
        settings = {"OPENWEATHER_API_KEY": KEY, "OPENWEATHER_URL": provider.url, "WEATHER_TIMEOUT_SECONDS": "30"}
        context = serving(tmp_path, DATABASE_URL=database_url, **settings)
        server = await asyncio.to_thread(context.__enter__)
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=60, headers=ada.client.headers) as client:
                first = asyncio.create_task(client.post("/tasks", json=SENT, headers=HEADERS))
                await until(asked(provider, 1))
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                with pytest.raises(httpx.TransportError):
                    await first
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
        provider.mode = "ok"
        assert await make.sql.fetchval("select count(*) from tasks") == 0
        problem(await send(ada), 409)
        lease = await make.sql.fetchval(
            "select extract(epoch from claimed_until - now())::float8 from idempotency_keys"
        )
        assert 0 < lease < 60
        await make.sql.execute("update idempotency_keys set claimed_until = now()")
        made = await send(ada)
        assert (made.status_code, "Idempotency-Replayed" in made.headers) == (201, False)
        assert (await send(ada)).content == made.content
        assert await make.sql.fetchval("select count(*) from tasks") == 1
