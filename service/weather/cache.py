"""What is kept of the weather: answers, in Redis and in the process, under what cities are called."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from cachetools import TLRUCache

from service.core.redis import RedisClient, RedisUnavailableError

NO_SUCH_CITY_SECONDS = 300
MAX_CITIES = 10_000
NOTHING = b"null"


class City(NamedTuple):
    """What the provider is asked for, and what all spellings have in common: Unicode form, case, spaces."""

    text: str
    normal: str

    @classmethod
    def of(cls, text: str) -> City:
        """Give a city as somebody wrote it."""
        return cls(text.strip(), " ".join(unicodedata.normalize("NFKC", text).casefold().split()))

    @property
    def lease(self) -> str:
        """Give the name of the lock of the replica that asks for it."""
        return f"weather:turn:{self.normal}"

    def name(self, found: bytes) -> str:
        """Give the key of an answer: the provider may know a city in one spelling and not in another."""
        return f"weather:none:{self.text}" if found == NOTHING else f"weather:of:{self.normal}"


class Cache:
    """Weather by a city's normal form, and by its text that there is none; in the process for when Redis is away."""

    def __init__(self, redis: RedisClient | None, *, seconds: int) -> None:
        self._redis = redis
        self._seconds = seconds
        self._local: TLRUCache[str, bytes] = TLRUCache(MAX_CITIES, lambda _, found, now: now + self._lifetime(found))

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self._seconds > 0

    def _lifetime(self, found: bytes) -> int:
        return min(NO_SUCH_CITY_SECONDS, self._seconds) if found == NOTHING else self._seconds

    async def get(self, city: City) -> bytes | None:
        """Give what is kept of a city."""
        return (await self.look(city))[0]

    async def look(self, city: City) -> tuple[bytes | None, bool]:
        """Give what is kept of a city, and whether it was still some replica's turn at that moment."""
        names = [city.name(b""), city.name(NOTHING)]
        kept: list[Any] = [*map(self._local.get, names), None]
        try:
            if self._redis:
                kept = [*await self._redis.call(lambda redis: redis.mget([*names, city.lease]))]
        except RedisUnavailableError:
            pass
        weather, nothing, lease = kept
        if weather is not None and _is_weather(weather):
            return weather, lease is not None
        return NOTHING if nothing == NOTHING else None, lease is not None

    async def put(self, city: City, found: bytes) -> None:
        """Keep an answer."""
        if not self.keeps:
            return
        name, seconds = city.name(found), self._lifetime(found)
        self._local[name] = found
        if self._redis:
            with suppress(RedisUnavailableError):
                await self._redis.call(lambda redis: redis.set(name, found, ex=seconds))


def _is_weather(kept: bytes) -> bool:
    """Whether it is what `put` writes: others may write to that Redis."""
    try:
        fields = orjson.loads(kept)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(fields, dict):
        return False
    whole = isinstance(fields.get("temperature"), int | float) and isinstance(fields.get("condition"), str)
    return whole and b"\\u0000" not in kept
