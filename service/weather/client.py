"""The OpenWeather client: one look-up per city however many ask, within a budget, cached, behind a circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import aiohttp
import orjson
from loguru import logger
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from service.core import metrics, server_timing
from service.core.redis import RedisClient, RedisUnavailableError
from service.core.server_timing import measured
from service.core.settings import Settings
from service.core.validation import Text
from service.weather.cache import NOTHING, Cache, City
from service.weather.circuit_breaker import ProviderCircuit, WeatherUnavailableError

MAX_RESPONSE_BYTES = 64 * 1024
NO_SUCH_CITY = (400, 404)  # 400: a text in which the provider sees no place; it is not asked again and again
MAX_CALLS = 20
CITIES_AT_ONCE = 10  # of one caller's many, so that others find some calls free
POLL_SECONDS = 0.05


class _Condition(BaseModel):
    main: Annotated[Text, Field(min_length=1, max_length=100)]


class _Main(BaseModel):
    temp: Annotated[float, Field(ge=-150, le=150, allow_inf_nan=False)]
    humidity: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None


class _Wind(BaseModel):
    speed: Annotated[float | None, Field(ge=0, le=1000, allow_inf_nan=False)] = None


class _Answer(BaseModel):
    """What is read of the provider's answer."""

    weather: Annotated[list[_Condition], Field(min_length=1)]
    main: _Main
    wind: _Wind = _Wind()
    dt: Annotated[int | None, Field(ge=0, le=2**33)] = None

    def as_weather(self) -> bytes:
        """Give the JSON that a task keeps: °C, %, m/s."""
        return orjson.dumps(
            {
                "temperature": self.main.temp,
                "condition": self.weather[0].main,
                "humidity": self.main.humidity,
                "wind_speed": self.wind.speed,
                "observed_at": None if self.dt is None else datetime.fromtimestamp(self.dt, UTC),
            },
            option=orjson.OPT_UTC_Z,
        )


class _Flight(NamedTuple):
    city: City
    task: asyncio.Task[bytes]


class Weather:
    """Looks weather up. Without a key there is none, which is said once."""

    def __init__(self, given: Settings, *, session: aiohttp.ClientSession, redis: RedisClient | None) -> None:
        self._url = f"{given.openweather_url.rstrip('/')}/data/2.5/weather"
        self._key = given.openweather_api_key.get_secret_value()
        self.budget = given.weather_timeout_seconds
        self._session = session
        self._cache = Cache(redis, seconds=given.weather_cache_seconds)
        self._redis = redis
        self._circuit = ProviderCircuit()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._flights: dict[str, _Flight] = {}
        if not self._key:
            logger.info("OPENWEATHER_API_KEY is empty: tasks get no weather")

    @property
    def available(self) -> bool:
        """Whether there is a provider and it may be asked."""
        return bool(self._key) and not self._circuit.open

    async def now(self, city: str | None) -> orjson.Fragment | None:
        """Give a city's weather as JSON for a request; None where there is none, or none within the budget."""
        if city is None or not self._key:
            return None
        try:
            return await self.look_up(city)
        except WeatherUnavailableError:
            return None

    async def of(self, cities: Collection[str]) -> dict[str, orjson.Fragment]:
        """Give the weather of those cities for which there is one within the budget of a single look-up."""
        found: dict[str, orjson.Fragment] = {}
        turns = asyncio.Semaphore(CITIES_AT_ONCE)

        async def look(city: str) -> None:
            server_timing.begin()  # what many wait for at once is counted once
            async with turns:
                if weather := await self.now(city):
                    found[city] = weather

        with measured("weather"), suppress(TimeoutError):
            async with asyncio.timeout(self.budget), asyncio.TaskGroup() as group:
                for city in cities:
                    group.create_task(look(city))
        return found

    async def look_up(self, city: str) -> orjson.Fragment | None:
        """Give a city's weather as JSON, None where there is no such city; WeatherAwayError."""
        asked = City.of(city)
        if not asked.normal:
            return None
        begun, budget = time.monotonic(), self.budget
        with measured("weather"):
            while True:
                flight = self._flights.get(asked.normal) or self._start(asked, budget)
                found = await asyncio.shield(flight.task)
                # The provider may know a city in one spelling that it does not know in another.
                if found != NOTHING or flight.city == asked:
                    return None if found == NOTHING else orjson.Fragment(found)
                budget = begun + self.budget - time.monotonic()
                if budget <= 0:
                    raise WeatherUnavailableError

    async def close(self) -> None:
        """End what is still being looked up for nobody."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, city: City, budget: float) -> _Flight:
        flight = self._flights[city.normal] = _Flight(city, asyncio.create_task(self._fly(city, budget)))
        flight.task.add_done_callback(lambda ended: self._landed(city, ended))
        return flight

    def _landed(self, city: City, task: asyncio.Task[bytes]) -> None:
        del self._flights[city.normal]
        if not task.cancelled():
            task.exception()  # every passenger may have left

    async def _fly(self, city: City, budget: float) -> bytes:
        deadline = time.monotonic() + budget
        found = await self._cache.get(city)
        metrics.CACHE.labels("miss" if found is None else "hit").inc()
        if found is None:
            async with self._lease(city) as ours:
                if not ours:
                    return await self._wait(city, deadline)
                # Another replica may have found it between the look into the cache and our turn.
                found = await self._cache.get(city) or await self._ask(city, deadline)
        return found

    @asynccontextmanager
    async def _lease(self, city: City) -> AsyncIterator[bool]:
        """Whether it is this replica that asks; each asks for itself without Redis, or where no answer is kept."""
        lock = None
        try:
            if self._redis and self._cache.keeps:
                name, seconds = city.lease, self.budget + 1
                lock = await self._redis.call(lambda redis: _acquired(redis, name, seconds))
                if lock is None:
                    yield False
                    return
        except RedisUnavailableError:
            pass
        try:
            yield True
        finally:
            if self._redis and lock:
                with suppress(RedisUnavailableError):
                    await self._redis.call(lambda _: _released(lock))

    async def _wait(self, city: City, deadline: float) -> bytes:
        """Wait for what another replica finds, as long as it has its turn."""
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            found, goes_on = await self._cache.look(city)
            if found is not None:
                return found
            if not goes_on:
                break
        raise WeatherUnavailableError

    async def _ask(self, city: City, deadline: float) -> bytes:
        self._circuit.check(city.normal)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._calls.acquire()
        except TimeoutError:  # no failure of the provider's
            raise WeatherUnavailableError from None
        try:
            with self._circuit.call(city.normal), _timed() as result:
                found = await self._request(city.text, deadline)
                result.append("none" if found == NOTHING else "found")
        finally:
            self._calls.release()
        await self._cache.put(city, found)
        return found

    async def _request(self, city: str, deadline: float) -> bytes:
        """Ask the provider once. Its errors are not passed on: their text holds the URL, and that the key."""
        try:
            async with self._session.get(
                self._url,
                params={"q": city, "units": "metric", "appid": self._key},
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=max(0.001, deadline - time.monotonic())),
            ) as answer:
                if answer.status in NO_SUCH_CITY:
                    return NOTHING
                if answer.status in {401, 403}:
                    logger.warning("weather: the provider refuses OPENWEATHER_API_KEY (status {})", answer.status)
                if answer.status != 200:
                    raise WeatherUnavailableError(f"status {answer.status}")
                return _Answer.model_validate_json(await _body(answer)).as_weather()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise WeatherUnavailableError(type(error).__name__) from None


@contextmanager
def _timed() -> Iterator[list[str]]:
    """Count a request by what is put into the list, as failed where nothing is."""
    begun = time.monotonic()
    result: list[str] = []
    try:
        yield result
    finally:
        metrics.WEATHER.labels(*result or ["failed"]).observe(time.monotonic() - begun)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise WeatherUnavailableError("too large")
    return bytes(body)


async def _acquired(redis: Redis, name: str, seconds: float) -> Lock | None:
    lock = redis.lock(name, timeout=seconds, blocking=False)
    return lock if await lock.acquire() else None


async def _released(lock: Lock) -> None:
    with suppress(LockError):  # it has expired: no reason to believe that Redis is away
        await lock.release()


@asynccontextmanager
async def opened(given: Settings, redis: RedisClient | None) -> AsyncIterator[Weather]:
    """Open the client with one HTTP session for the life of the process."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        weather = Weather(given, session=session, redis=redis)
        try:
            yield weather
        finally:
            await weather.close()
