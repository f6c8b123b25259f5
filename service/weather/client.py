"""The OpenWeather client: one call per city for all who ask, with a timeout, a cache and a circuit breaker."""

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
from service.weather.cache import NO_SUCH_CITY, City, WeatherCache
from service.weather.circuit_breaker import ProviderCircuit, WeatherUnavailableError

MAX_RESPONSE_BYTES = 64 * 1024
NO_SUCH_CITY_STATUSES = (400, 404)  # the provider answers 400 to a text in which it sees no place
MAX_CALLS = 20
CITIES_AT_ONCE = 10  # per caller, so that other callers find some of MAX_CALLS free
POLL_SECONDS = 0.05


class _Condition(BaseModel):
    main: Annotated[Text, Field(min_length=1, max_length=100)]


class _Main(BaseModel):
    temp: Annotated[float, Field(ge=-150, le=150, allow_inf_nan=False)]
    humidity: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None


class _Wind(BaseModel):
    speed: Annotated[float | None, Field(ge=0, le=1000, allow_inf_nan=False)] = None


class _Answer(BaseModel):
    """The members of the provider's answer that the service reads."""

    weather: Annotated[list[_Condition], Field(min_length=1)]
    main: _Main
    wind: _Wind = _Wind()
    dt: Annotated[int | None, Field(ge=0, le=2**33)] = None

    def as_weather(self) -> bytes:
        """Return the JSON that a task stores, in °C, % and m/s."""
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


class WeatherClient:
    """The weather of cities, from the cache or the provider; none without an API key."""

    def __init__(self, settings: Settings, *, session: aiohttp.ClientSession, redis: RedisClient | None) -> None:
        self._url = f"{settings.openweather_url.rstrip('/')}/data/2.5/weather"
        self._api_key = settings.openweather_api_key.get_secret_value()
        self.timeout_seconds = settings.weather_timeout_seconds
        self._session = session
        self._cache = WeatherCache(redis, seconds=settings.weather_cache_seconds)
        self._redis = redis
        self._circuit = ProviderCircuit()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._flights: dict[str, _Flight] = {}
        if not self._api_key:
            logger.bind(reason="OPENWEATHER_API_KEY is empty").info("weather disabled")

    @property
    def available(self) -> bool:
        """Whether there is an API key and the provider's circuit lets calls through."""
        return bool(self._api_key) and not self._circuit.is_open

    async def find(self, city: str | None) -> orjson.Fragment | None:
        """Return a city's weather as JSON; None if there is none, or none within the timeout."""
        if city is None or not self._api_key:
            return None
        try:
            return await self.fetch(city)
        except WeatherUnavailableError:
            return None

    async def find_many(self, cities: Collection[str]) -> dict[str, orjson.Fragment]:
        """Return the weather of those cities that have some, as far as it arrives within the timeout of one call."""
        weather_by_city: dict[str, orjson.Fragment] = {}
        slots = asyncio.Semaphore(CITIES_AT_ONCE)

        async def find_one(city: str) -> None:
            server_timing.begin()  # this task's own: else parallel waits would add up in the request's
            async with slots:
                if weather := await self.find(city):
                    weather_by_city[city] = weather

        with measured("weather"), suppress(TimeoutError):
            async with asyncio.timeout(self.timeout_seconds), asyncio.TaskGroup() as group:
                for city in cities:
                    group.create_task(find_one(city))
        return weather_by_city

    async def fetch(self, city: str) -> orjson.Fragment | None:
        """Return a city's weather as JSON; None if there is no such city.

        Raises WeatherUnavailableError.
        """
        wanted = City.of(city)
        if not wanted.normal:
            return None
        begun, seconds = time.monotonic(), self.timeout_seconds
        with measured("weather"):
            while True:
                flight = self._flights.get(wanted.normal) or self._start(wanted, seconds)
                answer = await asyncio.shield(flight.task)
                # The provider may know a city in one spelling that it does not know in another.
                if answer != NO_SUCH_CITY or flight.city == wanted:
                    return None if answer == NO_SUCH_CITY else orjson.Fragment(answer)
                seconds = begun + self.timeout_seconds - time.monotonic()
                if seconds <= 0:
                    raise WeatherUnavailableError

    async def close(self) -> None:
        """Cancel the calls that still run."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, city: City, seconds: float) -> _Flight:
        flight = self._flights[city.normal] = _Flight(city, asyncio.create_task(self._find_answer(city, seconds)))
        flight.task.add_done_callback(lambda task: self._end(city, task))
        return flight

    def _end(self, city: City, task: asyncio.Task[bytes]) -> None:
        del self._flights[city.normal]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: every caller may have left

    async def _find_answer(self, city: City, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        answer = await self._cache.get(city)
        metrics.CACHE_LOOKUPS.labels("miss" if answer is None else "hit").inc()
        if answer is None:
            async with self._lock(city) as acquired:
                if not acquired:
                    return await self._wait_for_other_replica(city, deadline)
                # Another replica may have stored an answer since the first read of the cache.
                answer = await self._cache.get(city) or await self._ask(city, deadline)
        return answer

    @asynccontextmanager
    async def _lock(self, city: City) -> AsyncIterator[bool]:
        """Hold the city's lock, so that one replica asks the provider; yield whether this replica holds it.

        Without Redis or a cache every replica asks, because none can read another's answer.
        """
        lock = None
        try:
            if self._redis and self._cache.enabled:
                key, seconds = city.lock_key, self.timeout_seconds + 1
                lock = await self._redis.call(lambda redis: _acquire(redis, key, seconds))
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
                    await self._redis.call(lambda _: _release(lock))

    async def _wait_for_other_replica(self, city: City, deadline: float) -> bytes:
        """Return the answer that another replica stores while it holds the city's lock."""
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            answer, is_locked = await self._cache.get_with_lock(city)
            if answer is not None:
                return answer
            if not is_locked:
                break
        raise WeatherUnavailableError

    async def _ask(self, city: City, deadline: float) -> bytes:
        self._circuit.check(city.normal)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._calls.acquire()
        except TimeoutError:  # not a failure of the provider
            raise WeatherUnavailableError from None
        try:
            with self._circuit.call(city.normal), _timed() as result:
                answer = await self._request(city.text, deadline)
                result.append("none" if answer == NO_SUCH_CITY else "found")
        finally:
            self._calls.release()
        await self._cache.put(city, answer)
        return answer

    async def _request(self, city: str, deadline: float) -> bytes:
        """Send one request to the provider; drop the text of its errors, which holds the URL with the API key."""
        try:
            async with self._session.get(
                self._url,
                params={"q": city, "units": "metric", "appid": self._api_key},
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=max(0.001, deadline - time.monotonic())),
            ) as response:
                if response.status in NO_SUCH_CITY_STATUSES:
                    return NO_SUCH_CITY
                if response.status in {401, 403}:
                    logger.bind(status=response.status, setting="OPENWEATHER_API_KEY").warning("weather key refused")
                if response.status != 200:
                    raise WeatherUnavailableError(f"status {response.status}")
                return _Answer.model_validate_json(await _body(response)).as_weather()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise WeatherUnavailableError(type(error).__name__) from None


@contextmanager
def _timed() -> Iterator[list[str]]:
    """Measure a request, labelled with the result that the block puts into the list, else as failed."""
    begun = time.monotonic()
    result: list[str] = []
    try:
        yield result
    finally:
        metrics.WEATHER_REQUESTS.labels(*result or ["failed"]).observe(time.monotonic() - begun)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise WeatherUnavailableError("too large")
    return bytes(body)


async def _acquire(redis: Redis, key: str, seconds: float) -> Lock | None:
    lock = redis.lock(key, timeout=seconds, blocking=False)
    return lock if await lock.acquire() else None


async def _release(lock: Lock) -> None:
    with suppress(LockError):  # an expired lock does not mean that Redis is unavailable
        await lock.release()


@asynccontextmanager
async def opened(settings: Settings, redis: RedisClient | None) -> AsyncIterator[WeatherClient]:
    """Open the client with one HTTP session, and close both at the end."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        client = WeatherClient(settings, session=session, redis=redis)
        try:
            yield client
        finally:
            await client.close()
