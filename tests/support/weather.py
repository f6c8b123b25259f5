"""Fixtures of the weather tests: a provider, applications that call it, and their log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import pytest
from loguru import logger
from redis.asyncio import Redis

from service.accounts.passwords import Passwords
from service.app import create_app
from service.core import redis as redis_client
from service.weather import client as weather
from service.weather.client import WeatherClient
from tests.conftest import make_settings
from tests.support import provider as providers
from tests.support.factories import Factory
from tests.support.provider import KEY, Provider

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Factory]]
Forecaster: TypeAlias = Callable[..., AbstractAsyncContextManager[WeatherClient]]

BUDGET = 0.3
MARGIN = 2.0  # for a busy machine; what hangs, hangs for ever
PATIENT_BUDGET = 20


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition is true, at most 20 seconds."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)


@pytest.fixture
def _patient_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a Redis timeout of 5 seconds, since Redis is slow on a busy machine."""
    monkeypatch.setattr(redis_client, "TIMEOUT_SECONDS", 5.0)


@pytest.fixture
def json_log(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Yield the log lines as JSON with their bound fields; the log of the standard library is in `caplog`."""
    lines: list[str] = []
    caplog.set_level(0)
    handler = logger.add(lambda message: lines.append(str(message)), level="TRACE", serialize=True)
    yield lines
    logger.remove(handler)


@pytest.fixture
async def provider(_patient_redis: None) -> AsyncIterator[Provider]:
    async with providers.serving() as provider:
        yield provider


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Yield a client of the worker's Redis, which is empty."""
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
        yield redis


def _settings(provider: Provider, values: dict[str, Any]) -> Any:
    return make_settings(
        values.pop("database_url", ""),
        **{
            "openweather_api_key": KEY,
            "openweather_url": provider.url,
            "weather_timeout_seconds": PATIENT_BUDGET,
            **values,
        },
    )


@pytest.fixture
def start(provider: Provider, sql: Session, database_url: str) -> Start:
    """Return a function that starts an application with the provider and the worker's database."""

    @asynccontextmanager
    async def started(**values: Any) -> AsyncIterator[Factory]:
        app = create_app(_settings(provider, {"database_url": database_url, **values}), passwords=Passwords(cost=4))
        async with app.router.lifespan_context(app):
            yield Factory(sql, app)

    return started


@pytest.fixture
def forecaster(provider: Provider) -> Forecaster:
    """Return a function that opens the weather client alone."""

    @asynccontextmanager
    async def opened(**values: Any) -> AsyncIterator[WeatherClient]:
        settings = _settings(provider, values)
        async with (
            redis_client.connected(settings.redis_url.get_secret_value()) as redis,
            weather.opened(settings, redis) as client,
        ):
            yield client

    return opened
