"""The connection to Redis: each call has a small budget, and where one fails Redis is away for all until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from service.core import metrics
from service.core.server_timing import measured

BUDGET_SECONDS = 0.05
BUDGET_SLICES = 5
CONNECTIONS = 100
MAX_BATCH = 100
PROBE_SECONDS = 1.0

T = TypeVar("T")


class RedisUnavailableError(Exception):
    """There is no Redis, or it is away or too slow; what needs it does without."""


class RedisClient:
    """Redis for what can do without it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._here = True
        self._probe: asyncio.Task[None] | None = None
        self._free = asyncio.Semaphore(CONNECTIONS)

    @property
    def here(self) -> bool:
        """Whether the last call or probe succeeded."""
        return self._here

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Do the work within the budget; RedisAwayError, at once where it was away before."""
        with measured("cache"):
            async with self._free:
                if not self._here:
                    raise RedisUnavailableError
                try:
                    async with _budget():
                        with metrics.REDIS_CALLS.time():
                            return await work(self._redis)
                except ResponseError as error:  # it is there, and refuses this: somebody else's key, say
                    raise RedisUnavailableError from error
                except Exception as error:  # whatever it is: what speaks there may not even be Redis
                    self._lost(error)
                    raise RedisUnavailableError from error

    async def answers(self) -> bool:
        """Ask whether it is there."""
        with suppress(RedisUnavailableError):
            await self.call(lambda redis: redis.ping())
        return self._here

    def _lost(self, error: BaseException) -> None:
        if self._here:
            self._here = False
            metrics.REDIS_UNAVAILABLE.set(1)
            logger.warning("redis is away: {}", type(error).__name__)
            self._probe = asyncio.create_task(self._until_back(), context=Context())

    async def _until_back(self) -> None:
        while not self._here:
            await asyncio.sleep(PROBE_SECONDS)
            with suppress(Exception):
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._redis.ping()
                async with _budget():  # on a connection that stands: one that is too slow would be lost again at once
                    await self._redis.ping()
                self._here = True
                metrics.REDIS_UNAVAILABLE.set(0)
                logger.info("redis is back")

    async def close(self) -> None:
        """Stop probing and disconnect."""
        if self._probe:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await self._redis.aclose()


class Scripts:
    """Runs scripts in Redis: those that are asked for while a round trip is under way make the next one together.

    Stands in for a client where a library registers its script.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._busy = False
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._flight: asyncio.Task[None] | None = None

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Give what runs the script. Its text is sent each time, so that Redis may forget it."""

        async def run(*, keys: list[str], args: list[Any], client: object) -> Any:  # noqa: ARG001 - the library's call
            return await self._run("EVAL", script, len(keys), *keys, *args)

        return run

    async def _run(self, *command: Any) -> Any:
        if self._busy:
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.append((command, reply))
            with measured("cache"):
                return await reply
        self._busy = True
        try:
            return await self._redis.call(lambda redis: redis.execute_command(*command))  # type: ignore[no-untyped-call]
        finally:
            if self._waiting:
                self._flight = asyncio.create_task(self._together(), context=Context())
            else:
                self._busy = False

    async def _together(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            said: list[Any]
            try:
                said = await self._redis.call(partial(_pipelined, commands=[command for command, _ in some]))
            except RedisUnavailableError as error:
                said = [error] * len(some)
            for (_, reply), one in zip(some, said, strict=True):
                if reply.done():  # who asked has left
                    continue
                if isinstance(one, Exception):
                    reply.set_exception(RedisUnavailableError())
                else:
                    reply.set_result(one)
        self._busy = False


async def _pipelined(redis: Redis, *, commands: list[tuple[Any, ...]]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)


@asynccontextmanager
async def _budget() -> AsyncIterator[None]:
    """TimeoutError after the budget.

    It is spent in slices, for each of which the event loop has to come round: where the loop is held up, the answer is
    there and not yet read, and Redis is not slow.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.Handle
    async with asyncio.timeout(None) as timeout:

        def spend(slices: int) -> None:
            nonlocal timer
            if slices:
                timer = loop.call_later(BUDGET_SECONDS / BUDGET_SLICES, spend, slices - 1)
            else:
                timeout.reschedule(loop.time())

        timer = loop.call_soon(spend, BUDGET_SLICES)
        try:
            yield
        finally:
            timer.cancel()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisClient | None]:
    """Open the client, and see whether Redis is there. None without a URL."""
    if not url:
        yield None
        return
    # The older protocol and no word on the library: a new connection then takes no round trips of its own. Every call
    # has its budget: the library's own timeout would make a task of each, and lose what cancels it (Python 3.11).
    client = RedisClient(
        Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2, driver_info=None, socket_timeout=None)
    )
    try:
        await client.answers()
        yield client
    finally:
        await client.close()
