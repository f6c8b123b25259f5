"""The Redis client: each call has a short timeout, and after a failed call all fail at once until a probe succeeds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from loguru import logger
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from service.core import metrics, server_timing

TIMEOUT_SECONDS = 0.05
TIMEOUT_SLICES = 5
CONNECTIONS = 100
MAX_BATCH = 100
PROBE_SECONDS = 1.0
PROBE_KEY = "service:probe"
SENTINEL_SCHEME, SENTINEL_PORT = "redis+sentinel", 26379
SENTINEL_SECONDS = 0.3  # for one sentinel, so that a probe reaches the second one

T = TypeVar("T")


class RedisUnavailableError(Exception):
    """Redis is not configured, unavailable or too slow; the caller goes on without it."""


class _Timeouts:
    """The timeouts of all calls, counted in slices by one timer, which runs while there are calls.

    A busy event loop delays the slices too. One long timer would expire while a reply waits for the loop to read it. A
    timeout ends with the slice in which TIMEOUT_SECONDS have passed. With one timer for all, this client adds 6 µs to a
    call of the library, and not 16.
    """

    def __init__(self) -> None:
        self._slices: dict[asyncio.Timeout, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, timeout: asyncio.Timeout) -> None:
        self._slices[timeout] = TIMEOUT_SLICES + 1  # part of the first has passed
        if self._timer is None:
            self._start_slice()

    def stop(self, timeout: asyncio.Timeout) -> None:
        self._slices.pop(timeout, None)

    def _start_slice(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TIMEOUT_SECONDS / TIMEOUT_SLICES, self._end_slice, context=Context())

    def _end_slice(self) -> None:
        self._timer = None
        for timeout, slices in list(self._slices.items()):
            if slices > 1:
                self._slices[timeout] = slices - 1
            else:
                self.stop(timeout)
                timeout.reschedule(asyncio.get_running_loop().time())
        if self._slices:
            self._start_slice()


class RedisClient:
    """A Redis client for features that can do without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._available = True
        metrics.REDIS_UNAVAILABLE.set(0)  # a client before this one may have been closed without Redis
        self._probe: asyncio.Task[None] | None = None
        self._timeouts = _Timeouts()
        self._free_connections = asyncio.Semaphore(CONNECTIONS)

    @property
    def available(self) -> bool:
        """Whether the last call or probe succeeded."""
        return self._available

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Run the work within TIMEOUT_SECONDS.

        Raises RedisUnavailableError, at once if Redis was unavailable before.
        """
        begun = time.perf_counter()
        try:
            async with self._free_connections:
                if not self._available:
                    raise RedisUnavailableError
                begun_call = time.perf_counter()
                try:
                    return await self._run_in_time(work)
                finally:
                    metrics.REDIS_CALLS.observe(time.perf_counter() - begun_call)
        except RedisUnavailableError:
            raise
        except ResponseError as error:
            if _is_unusable(error):
                self._disconnect(error)
            raise RedisUnavailableError from error
        except Exception as error:  # any other: the URL may lead to a server that is not Redis
            self._disconnect(error)
            raise RedisUnavailableError from error
        finally:
            server_timing.add("cache", time.perf_counter() - begun)

    async def _run_in_time(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        async with asyncio.timeout(None) as timeout:
            self._timeouts.start(timeout)
            try:
                return await work(self._redis)
            finally:
                self._timeouts.stop(timeout)

    async def ping(self) -> bool:
        """Write to Redis, and return whether it accepts this; a replica answers a PING as well."""
        with suppress(RedisUnavailableError):
            await self.call(_write)
        return self._available

    def _disconnect(self, error: BaseException) -> None:
        if self._available:
            self._available = False
            metrics.REDIS_UNAVAILABLE.set(1)
            reason = str(error)[:80] if isinstance(error, ResponseError) else None
            logger.bind(error=type(error).__name__, reason=reason).warning("redis disconnected")
            self._probe = asyncio.create_task(self._reconnect(), context=Context())

    async def _reconnect(self) -> None:
        while not self._available:
            await asyncio.sleep(PROBE_SECONDS)
            with suppress(Exception):
                # A kept connection may lead to a server that is a replica now. A new one looks the name up again.
                await self._redis.connection_pool.disconnect()
                async with asyncio.timeout(PROBE_SECONDS):
                    await _write(self._redis)
                # On the open connection: the first call would fail if Redis is still too slow.
                await self._run_in_time(_write)
                self._available = True
                metrics.REDIS_UNAVAILABLE.set(0)
                logger.info("redis reconnected")

    async def close(self) -> None:
        """Stop probing and disconnect."""
        if self._probe:
            self._probe.cancel()
            await asyncio.wait([self._probe])
        await self._redis.aclose()


class Scripts:
    """A runner of Lua scripts in Redis; calls that arrive during a round trip share the next one."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._busy = False
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._batch: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether Redis is available."""
        return self._redis.available

    async def run(self, script: str, *, keys: list[str], args: list[Any]) -> Any:
        """Run a script and return its result; each call sends the text, so that Redis need not remember it.

        Raises RedisUnavailableError.
        """
        command = ("EVAL", script, len(keys), *keys, *args)
        if self._busy:
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.append((command, reply))
            begun = time.perf_counter()
            try:
                return await reply
            finally:
                server_timing.add("cache", time.perf_counter() - begun)
        self._busy = True
        try:
            return await self._redis.call(lambda redis: redis.execute_command(*command))  # type: ignore[no-untyped-call]
        finally:
            if self._waiting:
                self._batch = asyncio.create_task(self._run_waiting(), context=Context())
            else:
                self._busy = False

    async def _run_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            results: list[Any]
            try:
                results = await self._redis.call(partial(_pipelined, commands=[command for command, _ in batch]))
            except RedisUnavailableError as error:
                results = [error] * len(batch)
            for (_, reply), result in zip(batch, results, strict=True):
                if reply.done():  # the caller was cancelled
                    continue
                if isinstance(result, Exception):
                    reply.set_exception(RedisUnavailableError())
                else:
                    reply.set_result(result)
        self._busy = False


def _is_unusable(error: Exception) -> bool:
    """Return whether Redis would refuse other calls as well: not if a key has the type that another program gave it."""
    return isinstance(error, ResponseError) and "WRONGTYPE" not in str(error)


async def _write(redis: Redis) -> None:
    await redis.set(PROBE_KEY, b"", px=1000)


async def _pipelined(redis: Redis, *, commands: list[tuple[Any, ...]]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    results: list[Any] = await pipeline.execute(raise_on_error=False)
    for result in results:
        if isinstance(result, Exception) and _is_unusable(result):
            raise result
    return results


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisClient | None]:
    """Open the client and write to Redis; yield None without a URL."""
    if not url:
        yield None
        return
    async with AsyncExitStack() as stack:
        client = RedisClient(_open(url, stack))
        stack.push_async_callback(client.close)
        await client.ping()
        yield client


def _open(url: str, stack: AsyncExitStack) -> Redis:
    # Protocol 2 and no driver info save a new connection the round trips of a handshake. No socket timeout: each call
    # has its own, and the library's would make a task of each call, which loses its cancellation (Python 3.11).
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        "socket_timeout": None,
    }
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return Redis.from_url(url, **options)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    addresses = [urlsplit(f"//{host}") for host in hosts.split(",")]
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [(one.hostname, one.port or SENTINEL_PORT) for one in addresses],
        sentinel_kwargs={
            "socket_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "password": dict(parse_qsl(parts.query)).get("sentinel_password"),
        },
    )
    stack.push_async_callback(sentinels.aclose)
    _, service, *database = parts.path.split("/")
    redis: Redis = sentinels.master_for(
        service, username=username or None, password=password or None, db=int(database[0]) if database else 0, **options
    )
    return redis
