"""The provider's answers by city, kept in Redis and in the process."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from cachetools import TLRUCache

from service.core.redis import RedisClient, RedisUnavailableError

NO_SUCH_CITY_SECONDS = 300
MAX_CITIES = 10_000
NO_SUCH_CITY = b"null"


class City(NamedTuple):
    """A city as it was written, and in the form that all its spellings share (Unicode form, case, spaces)."""

    text: str
    normal: str

    @classmethod
    def of(cls, text: str) -> City:
        """Return the city of a text that a user wrote."""
        return cls(text.strip(), " ".join(unicodedata.normalize("NFKC", text).casefold().split()))

    @property
    def lock_key(self) -> str:
        """The Redis key of the lock that the replica that asks the provider holds."""
        return f"weather:turn:{self.normal}"

    def answer_key(self, answer: bytes) -> str:
        """Return the Redis key of an answer: the provider may know one spelling of a city and not another."""
        return f"weather:none:{self.text}" if answer == NO_SUCH_CITY else f"weather:of:{self.normal}"


class WeatherCache:
    """Weather by a city's normal form, and the spellings that name no city; in the process if Redis is unavailable."""

    def __init__(self, redis: RedisClient | None, *, seconds: int) -> None:
        self._redis = redis
        self._seconds = seconds
        self._local: TLRUCache[str, bytes] = TLRUCache(MAX_CITIES, lambda _, answer, now: now + self._lifetime(answer))

    @property
    def enabled(self) -> bool:
        """Whether the cache stores answers."""
        return self._seconds > 0

    def _lifetime(self, answer: bytes) -> int:
        return min(NO_SUCH_CITY_SECONDS, self._seconds) if answer == NO_SUCH_CITY else self._seconds

    async def get(self, city: City) -> bytes | None:
        """Return the stored answer for a city."""
        return (await self.get_with_lock(city))[0]

    async def get_with_lock(self, city: City) -> tuple[bytes | None, bool]:
        """Return the stored answer for a city, and whether some replica held the city's lock at that moment."""
        keys = [city.answer_key(b""), city.answer_key(NO_SUCH_CITY)]
        stored: list[Any] = [*map(self._local.get, keys), None]
        try:
            if self._redis:
                stored = [*await self._redis.call(lambda redis: redis.mget([*keys, city.lock_key]))]
        except RedisUnavailableError:
            pass
        weather, no_such_city, lock = stored
        if weather is not None and _is_weather(weather):
            return weather, lock is not None
        return NO_SUCH_CITY if no_such_city == NO_SUCH_CITY else None, lock is not None

    async def put(self, city: City, answer: bytes) -> None:
        """Store an answer."""
        if not self.enabled:
            return
        key, seconds = city.answer_key(answer), self._lifetime(answer)
        self._local[key] = answer
        if self._redis:
            with suppress(RedisUnavailableError):
                await self._redis.call(lambda redis: redis.set(key, answer, ex=seconds))


def _is_weather(stored: bytes) -> bool:
    """Return whether `put` wrote this value: other programs may write to the same Redis."""
    try:
        fields = orjson.loads(stored)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(fields, dict):
        return False
    complete = isinstance(fields.get("temperature"), int | float) and isinstance(fields.get("condition", 0), str | None)
    return complete and b"\\u0000" not in stored
