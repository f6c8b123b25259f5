"""The connection to Redis: each call has a small budget, and where one fails Redis is away for all until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.timing import measured

BUDGET_SECONDS = 0.05
PROBE_SECONDS = 1.0

T = TypeVar("T")


class RedisAwayError(Exception):
    """There is no Redis, or it is away or too slow; what needs it does without."""


class RedisClient:
    """Redis for what can do without it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._here = True
        self._probe: asyncio.Task[None] | None = None

    @property
    def here(self) -> bool:
        """Whether the last call or probe succeeded."""
        return self._here

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Do the work within the budget; RedisAwayError, at once where it was away before."""
        if not self._here:
            raise RedisAwayError
        try:
            with measured("cache"):
                async with asyncio.timeout(BUDGET_SECONDS):
                    return await work(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            raise RedisAwayError from error

    def _lost(self, error: BaseException) -> None:
        if self._here:
            self._here = False
            logger.warning("redis is away: {}", type(error).__name__)
            self._probe = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        while not self._here:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._redis.ping()
                self._here = True
                logger.info("redis is back")
            except (RedisError, OSError, TimeoutError):
                continue

    async def close(self) -> None:
        """Stop probing and disconnect."""
        if self._probe:
            self._probe.cancel()
        await self._redis.aclose()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisClient | None]:
    """Open the client; it connects at first use. None without a URL."""
    if not url:
        yield None
        return
    client = RedisClient(Redis.from_url(url, retry=Retry(NoBackoff(), 0), max_connections=100))
    try:
        yield client
    finally:
        await client.close()
