"""GCRA over all processes in Redis, by leases of several permits; in the process alone without Redis."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from cachetools import LRUCache
from pyrate_limiter import Duration, Rate
from pyrate_limiter.abstracts.algorithm import State

from service.core import metrics
from service.core.redis import RedisClient, RedisUnavailableError, Scripts
from service.ratelimit.leases import Lease, Leasing, SharedState

# Per cent of what is free that one call leases: before anything is known, and after.
FIRST_SHARE, SHARE_ALONE, SHARE_BESIDE_OTHERS = 10, 40, 20
ROUNDING = 0.001  # of a permit: what times in milliseconds add up to
MAX_KEYS = 50_000
ALGORITHM = Leasing()


@dataclass(frozen=True)
class LimitDecision:
    """What a limit says of one request; times in seconds, `retry_after` only where it is refused."""

    policy: str
    limit: int
    remaining: int
    reset: int
    retry_after: int = 0


@dataclass
class LimiterState:
    """What this process knows of one key: its own GCRA's state, and what it knows and holds of Redis's.

    Times are this machine's monotonic milliseconds.
    """

    state: State = (0,)
    shared: SharedState | None = None
    share: int = FIRST_SHARE
    leased: int = 0
    full_at: float = 0.0
    refused_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Limit:
    """`per_minute` requests at once, then as many a minute, evenly, for each key.

    A request is admitted where this process's own GCRA admits it and, as long as Redis is there, the shared one has
    leased a permit for it. What is leased moves the time at which the shared bucket is full again, and holds until
    then: no permit outlives its own stretch of that time, so that all processes together never admit more than GCRA
    would. What others hold when the bucket runs dry is refused early. A process leases little at first, much where it
    sees that nobody else does, and less where others do.
    """

    def __init__(self, policy: str, per_minute: int, redis: RedisClient | None) -> None:
        self.policy = policy
        self.per_minute = per_minute
        self._rates = [Rate(per_minute, Duration.MINUTE)]
        self._emission = ceil(Duration.MINUTE.value * 1000 / per_minute) / 1000
        self._admitted = metrics.LIMITS.labels(policy, "admitted")
        self._refused = metrics.LIMITS.labels(policy, "refused")
        self._redis = redis
        self._scripts = redis and Scripts(redis)
        self._buckets: LRUCache[str, LimiterState] = LRUCache(MAX_KEYS)

    async def check(self, key: str) -> LimitDecision:
        """Spend one permit of the key, or say when there will be one again."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = LimiterState()
        wait = self._step(bucket, spend=False) or await self._permit(key, bucket) or self._step(bucket, spend=True)
        (self._refused if wait else self._admitted).inc()
        now = _monotonic()
        used = max(bucket.state[0] / 1000 - now, bucket.full_at - now - bucket.leased * self._emission, 0)
        return LimitDecision(
            policy=self.policy,
            limit=self.per_minute,
            remaining=0 if wait else max(0, self.per_minute - ceil(used / self._emission - ROUNDING)),
            reset=ceil(max(wait, used) / 1000),
            retry_after=ceil(wait / 1000),
        )

    def is_exhausted(self, key: str) -> bool:
        """Whether this process knows that the key's budget is spent."""
        bucket = self._buckets.get(key)
        return bucket is not None and self._step(bucket, spend=False) > 0

    def _step(self, bucket: LimiterState, *, spend: bool) -> int:
        """Give the milliseconds to wait by this process's own count; 0 where it admits."""
        state, decision = ALGORITHM.step(self._rates, bucket.state, _monotonic(), 1)
        if spend:
            bucket.state = state
        return decision.retry_after_ms or 0

    async def _permit(self, key: str, bucket: LimiterState) -> int:
        """Take a permit that was leased, or lease; give the milliseconds to wait, 0 where there is one."""
        if self._redis is None or self._take(bucket):
            return 0
        async with bucket.lock:
            if self._take(bucket):
                return 0
            wait = ceil(bucket.refused_until - _monotonic())
            if wait > 0 and self._redis.here:
                return wait
            try:
                return await self._lease(key, bucket)
            except RedisUnavailableError:
                return 0

    def _take(self, bucket: LimiterState) -> bool:
        if bucket.leased:
            bucket.leased = max(0, min(bucket.leased, int((bucket.full_at - _monotonic()) / self._emission)))
        if not bucket.leased:
            return False
        bucket.leased -= 1
        return True

    async def _lease(self, key: str, bucket: LimiterState) -> int:
        if bucket.shared is None:
            scripts: Any = self._scripts
            bucket.shared = SharedState(scripts, f"limit:{self.policy}:{key}")
        begun, now = _monotonic(), _now()
        lease: Lease = await bucket.shared.check(ALGORITHM, self._rates, now, bucket.share)  # type: ignore[no-untyped-call]
        full_at = begun + lease.full_at_us / 1000 - now
        wait = lease.retry_after_ms or 0
        if wait > Duration.MINUTE.value:  # a clock was set back, this one or the one of whoever leased last
            return 0
        others = full_at - lease.permits * self._emission > max(bucket.full_at, begun) + 1
        bucket.share = SHARE_BESIDE_OTHERS if others or wait else SHARE_ALONE
        bucket.full_at = full_at
        if wait:
            bucket.refused_until = _monotonic() + wait
        else:
            bucket.leased = lease.permits - 1
        return wait


def _now() -> int:
    """Give the milliseconds since the epoch: the shared state is compared across machines."""
    return time.time_ns() // 1_000_000


def _monotonic() -> int:
    return time.monotonic_ns() // 1_000_000
