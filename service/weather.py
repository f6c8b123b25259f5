"""The OpenWeather client: one look-up per city however many ask, within a budget, cached, behind a circuit breaker."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

import aiohttp
import orjson
from cachetools import TLRUCache
from circuitbreaker import STATE_HALF_OPEN, CircuitBreaker
from loguru import logger
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from service.redis_client import RedisAwayError, RedisClient
from service.settings import Settings
from service.timing import measured
from service.values import Text

LARGEST_ANSWER = 64 * 1024
NO_SUCH_CITY = (400, 404)  # 400: a text in which the provider sees no place; it is not asked again and again
NO_SUCH_CITY_SECONDS = 300
MOST_CITIES = 10_000
MOST_CALLS = 20
FAILURES, RECOVERY_SECONDS = 5, 10
POLL_SECONDS = 0.05
NOTHING = b"null"


class WeatherAwayError(Exception):
    """The provider is slow, failing, limiting, nonsensical, or left alone for a while because it was."""


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


def normal_form(city: str) -> str:
    """Give what two spellings of a city have in common: Unicode form, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", city).casefold().split())


class Weather:
    """Looks weather up. Without a key there is none, which is said once."""

    def __init__(self, given: Settings, *, session: aiohttp.ClientSession, redis: RedisClient | None) -> None:
        self._url = f"{given.openweather_url.rstrip('/')}/data/2.5/weather"
        self._key = given.openweather_api_key.get_secret_value()
        self._budget = given.weather_timeout_seconds
        self._session = session
        self._cache = _Cache(redis, seconds=given.weather_cache_seconds)
        self._redis = redis
        self._breaker = CircuitBreaker(FAILURES, RECOVERY_SECONDS, WeatherAwayError, name="weather")
        self._said = self._breaker.state
        self._trying = False
        self._calls = asyncio.Semaphore(MOST_CALLS)
        self._flights: dict[str, asyncio.Task[bytes]] = {}
        if not self._key:
            logger.info("OPENWEATHER_API_KEY is empty: tasks get no weather")

    @property
    def available(self) -> bool:
        """Whether there is a provider and it may be asked."""
        return bool(self._key) and not self._breaker.opened

    async def now(self, city: str | None) -> orjson.Fragment | None:
        """Give a city's weather as JSON for a request; None where there is none, or none within the budget."""
        if city is None or not self._key:
            return None
        try:
            return await self.look_up(city)
        except WeatherAwayError:
            return None

    async def look_up(self, city: str) -> orjson.Fragment | None:
        """Give a city's weather as JSON, None where there is no such city; WeatherAwayError."""
        normal = normal_form(city)
        if not normal:
            return None
        with measured("weather"):
            flight = self._flights.get(normal)
            if flight is None:
                flight = self._flights[normal] = asyncio.create_task(self._fly(city.strip(), normal))
                flight.add_done_callback(lambda ended: self._landed(normal, ended))
            found = await asyncio.shield(flight)
        return None if found == NOTHING else orjson.Fragment(found)

    async def close(self) -> None:
        """End what is still being looked up for nobody."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, normal: str, flight: asyncio.Task[bytes]) -> None:
        del self._flights[normal]
        if not flight.cancelled():
            flight.exception()  # every passenger may have left

    async def _fly(self, city: str, normal: str) -> bytes:
        deadline = time.monotonic() + self._budget
        found = await self._cache.get(normal)
        if found is None:
            async with self._turn(normal) as ours:
                if not ours:
                    return await self._wait(normal, deadline)
                # Another replica may have found it between the look into the cache and our turn.
                found = await self._cache.get(normal) or await self._ask(city, normal, deadline)
        return found

    @asynccontextmanager
    async def _turn(self, normal: str) -> AsyncIterator[bool]:
        """Whether it is this replica that asks; each asks for itself without Redis, or where no answer is kept."""
        lock = None
        try:
            if self._redis and self._cache.keeps:
                name, seconds = f"weather:turn:{normal}", self._budget + 1
                lock = await self._redis.call(lambda redis: _acquired(redis, name, seconds))
                if lock is None:
                    yield False
                    return
        except RedisAwayError:
            pass
        try:
            yield True
        finally:
            if self._redis and lock:
                with suppress(RedisAwayError):
                    await self._redis.call(lambda _: _released(lock))

    async def _wait(self, normal: str, deadline: float) -> bytes:
        """Wait for what another replica finds."""
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            if (found := await self._cache.get(normal)) is not None:
                return found
        raise WeatherAwayError

    async def _ask(self, city: str, normal: str, deadline: float) -> bytes:
        self._is_trial()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._calls.acquire()
        except TimeoutError:  # no failure of the provider's
            raise WeatherAwayError from None
        try:
            found = await self._call(city, deadline)
        finally:
            self._calls.release()
        await self._cache.put(normal, found)
        return found

    def _is_trial(self) -> bool:
        """Whether the circuit is half-open, which lets one call through; WeatherAwayError where it lets none."""
        trial: bool = self._breaker.state == STATE_HALF_OPEN
        if self._breaker.opened or (trial and self._trying):
            raise WeatherAwayError
        return trial

    async def _call(self, city: str, deadline: float) -> bytes:
        trial = self._is_trial()
        self._trying = self._trying or trial
        try:
            with self._breaker:
                return await self._request(city, deadline)
        finally:
            if trial:
                self._trying = False
            self._say()

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
                    raise WeatherAwayError(f"status {answer.status}")
                return _Answer.model_validate_json(await _body(answer)).as_weather()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise WeatherAwayError(type(error).__name__) from None

    def _say(self) -> None:
        state = self._breaker.state
        if state != self._said:
            self._said = state
            logger.bind(last=str(self._breaker.last_failure)).warning("weather: the circuit is {}", state)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise WeatherAwayError("too large")
    return bytes(body)


async def _acquired(redis: Redis, name: str, seconds: float) -> Lock | None:
    lock = redis.lock(name, timeout=seconds, blocking=False)
    return lock if await lock.acquire() else None


async def _released(lock: Lock) -> None:
    with suppress(LockError):  # it has expired: no reason to believe that Redis is away
        await lock.release()


async def _kept(redis: Redis, name: str) -> bytes | None:
    kept = await redis.get(name)
    return kept if isinstance(kept, bytes) and _is_weather(kept) else None


def _is_weather(kept: bytes) -> bool:
    """Whether it is what `put` writes: others may write to that Redis."""
    try:
        fields = orjson.loads(kept)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(fields, dict):
        return kept == NOTHING
    whole = isinstance(fields.get("temperature"), int | float) and isinstance(fields.get("condition"), str)
    return whole and b"\\u0000" not in kept


class _Cache:
    """Answers by a city's normal form: in Redis, and in the process for when Redis is away."""

    def __init__(self, redis: RedisClient | None, *, seconds: int) -> None:
        self._redis = redis
        self._seconds = seconds
        self._local: TLRUCache[str, bytes] = TLRUCache(MOST_CITIES, lambda _, found, now: now + self._lifetime(found))

    @property
    def keeps(self) -> bool:
        return self._seconds > 0

    def _lifetime(self, found: bytes) -> int:
        return min(NO_SUCH_CITY_SECONDS, self._seconds) if found == NOTHING else self._seconds

    async def get(self, normal: str) -> bytes | None:
        try:
            if self._redis:
                return await self._redis.call(lambda redis: _kept(redis, f"weather:of:{normal}"))
        except RedisAwayError:
            pass
        return self._local.get(normal)

    async def put(self, normal: str, found: bytes) -> None:
        if not self.keeps:
            return
        seconds = self._lifetime(found)
        self._local[normal] = found
        if self._redis:
            with suppress(RedisAwayError):
                await self._redis.call(lambda redis: redis.set(f"weather:of:{normal}", found, ex=seconds))


@asynccontextmanager
async def opened(given: Settings, redis: RedisClient | None) -> AsyncIterator[Weather]:
    """Open the client with one HTTP session for the life of the process."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        weather = Weather(given, session=session, redis=redis)
        try:
            yield weather
        finally:
            await weather.close()
