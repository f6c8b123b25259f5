"""The OpenWeather client: one call per city for all who ask, with a timeout, a cache and a circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import orjson
from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from service.core import metrics, server_timing
from service.core.redis import RedisClient, RedisUnavailableError
from service.core.server_timing import measured
from service.core.settings import Settings
from service.weather.cache import NO_SUCH_CITY, City, WeatherCache
from service.weather.circuit_breaker import ProviderCircuit, WeatherUnavailableError

if TYPE_CHECKING:
    from service.weather.provider import Provider

MAX_CALLS = 20
CITIES_AT_ONCE = 10  # per caller, so that other callers find some of MAX_CALLS free
POLL_SECONDS = 0.05


class _Flight(NamedTuple):
    city: City
    task: asyncio.Task[bytes]


class WeatherClient:
    """The weather of cities, from the cache or the provider; none without an API key."""

    def __init__(self, settings: Settings, *, provider: Provider | None, redis: RedisClient | None) -> None:
        self._provider = provider
        self.timeout_seconds = settings.weather_timeout_seconds
        self._cache = WeatherCache(redis, seconds=settings.weather_cache_seconds)
        self._redis = redis
        self._circuit = ProviderCircuit()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._flights: dict[str, _Flight] = {}
        if provider is None:
            logger.bind(reason="OPENWEATHER_API_KEY is empty").info("weather disabled")

    @property
    def available(self) -> bool:
        """Whether there is an API key and the provider's circuit lets calls through."""
        return self._provider is not None and not self._circuit.is_open

    async def find(self, city: str | None) -> orjson.Fragment | None:
        """Return a city's weather as JSON; None if there is none, or none within the timeout."""
        if city is None or self._provider is None:
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
        if self._provider is None:
            raise WeatherUnavailableError
        self._circuit.check(city.normal)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._calls.acquire()
        except TimeoutError:  # not a failure of the provider
            raise WeatherUnavailableError from None
        try:
            with self._circuit.call(city.normal), _timed() as result:
                answer = await self._provider.request(city.text, seconds=deadline - time.monotonic())
                result.append("none" if answer == NO_SUCH_CITY else "found")
        finally:
            self._calls.release()
        await self._cache.put(city, answer)
        return answer


@contextmanager
def _timed() -> Iterator[list[str]]:
    """Measure a request, labelled with the result that the block puts into the list, else as failed."""
    begun = time.monotonic()
    result: list[str] = []
    try:
        yield result
    finally:
        metrics.WEATHER_REQUESTS.labels(*result or ["failed"]).observe(time.monotonic() - begun)


async def _acquire(redis: Redis, key: str, seconds: float) -> Lock | None:
    lock = redis.lock(key, timeout=seconds, blocking=False)
    return lock if await lock.acquire() else None


async def _release(lock: Lock) -> None:
    with suppress(LockError):  # an expired lock does not mean that Redis is unavailable
        await lock.release()


@asynccontextmanager
async def opened(settings: Settings, redis: RedisClient | None) -> AsyncIterator[WeatherClient]:
    """Open the client, with the provider if there is an API key, and close both at the end."""
    async with AsyncExitStack() as stack:
        provider: Provider | None = None
        if settings.openweather_api_key:
            # Imported here: aiohttp takes 9 MiB and 0.18 s of the start.
            from service.weather import provider as weather_provider  # noqa: PLC0415

            provider = await stack.enter_async_context(weather_provider.opened(settings))
        client = WeatherClient(settings, provider=provider, redis=redis)
        try:
            yield client
        finally:
            await client.close()
