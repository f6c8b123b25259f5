"""Weather of many tasks made at once: each city is asked for once, all of them within one budget."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from service.weather import backfill, client
from tests.support.factories import User
from tests.support.provider import Provider, temperature
from tests.support.weather import BUDGET, MARGIN, Start, until


@pytest.fixture(autouse=True)
def _no_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every call is a request's own."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(backfill, "run", never)


async def create(user: User, *cities: str | None) -> list[dict[str, Any]]:
    tasks = [{"title": "x", "city": city} for city in cities]
    answer = await user.client.post("/tasks/bulk", json={"tasks": tasks})
    assert answer.status_code == 201, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def temperatures(items: list[dict[str, Any]]) -> list[float | None]:
    return [item["weather"] and item["weather"]["temperature"] for item in items]


async def test_each_city_is_requested_once(start: Start, provider: Provider) -> None:
    async with start(weather_timeout_seconds=10) as make:
        items = await create(await make.user(), *["Moscow", "Oslo", None, "Moscow"] * 50)
    assert sorted(provider.cities) == ["Moscow", "Oslo"]
    assert temperatures(items) == [temperature("Moscow"), temperature("Oslo"), None, temperature("Moscow")] * 50


@pytest.mark.parametrize("mode", ["hangs", "fails", "late"])
async def test_many_cities_take_no_longer_than_one(start: Start, provider: Provider, mode: str) -> None:
    provider.mode = mode
    async with start(weather_timeout_seconds=BUDGET) as make:
        ada = await make.user()
        began = time.monotonic()
        answer = await ada.client.post(
            "/tasks/bulk", json={"tasks": [{"title": "x", "city": f"city {n}"} for n in range(1000)]}
        )
        assert time.monotonic() - began < BUDGET + MARGIN
        assert len(answer.json()["items"]) == 1000
        durations = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
        assert float(durations["weather"]) <= float(durations["total"])


async def test_other_requests_find_free_provider_calls_meanwhile(start: Start, provider: Provider) -> None:
    provider.modes = {f"city {n}": "held" for n in range(100)}
    async with start(weather_timeout_seconds=30) as make:
        ada, bob = await make.user(), await make.user()
        many = asyncio.create_task(create(ada, *provider.modes))

        async def asked() -> bool:
            return len(provider.calls) == client.CITIES_AT_ONCE

        await until(asked)
        (item,) = await create(bob, "Oslo")
        assert temperatures([item]) == [temperature("Oslo")]
        assert not many.done()
        provider.released.set()
        assert temperatures(await many) == [temperature(city) for city in provider.modes]


async def test_weather_missed_within_the_budget_is_filled_in_later(start: Start, provider: Provider) -> None:
    provider.modes = {"Oslo": "held"}
    async with start(weather_timeout_seconds=2) as make:
        ada = await make.user()
        items = await create(ada, "Moscow", "Oslo", "Oslo")
        assert temperatures(items) == [temperature("Moscow"), None, None]
        provider.released.set()
        state = make.app.state.services

        async def filled() -> bool:
            await backfill.fill_batch(state.db, state.weather)
            return bool(await make.sql.fetchval("select count(weather) = 3 from tasks"))

        await until(filled)
