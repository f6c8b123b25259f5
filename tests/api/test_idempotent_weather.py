"""A request with an Idempotency-Key during its weather lookup: repeated, or taken over."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from service.weather import backfill
from tests.support.factories import User
from tests.support.problems import problem
from tests.support.provider import Provider, temperature
from tests.support.weather import Start, until

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


async def test_a_repeat_while_the_first_request_runs_gets_409(start: Start, provider: Provider) -> None:
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


async def test_a_request_whose_claim_was_taken_over_creates_nothing(start: Start, provider: Provider) -> None:
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
