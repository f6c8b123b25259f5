"""A clock that a test moves, in place of both clocks of the limits, and one limit for each simulated process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest

from service.core import redis
from service.ratelimit import limiter
from service.ratelimit.limiter import RateLimiter


class Clock:
    """A stopped clock, in milliseconds; the wall clock is `wall_lag` milliseconds slow."""

    def __init__(self) -> None:
        self.milliseconds = 1_800_000_000_000.0
        self.wall_lag = 0

    def pass_by(self, milliseconds: float) -> None:
        """Advance the clock."""
        self.milliseconds += milliseconds


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Replace the clocks of all limits by a stopped one; Redis timeouts keep their own clock."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiter, "_now", lambda: int(clock.milliseconds) - clock.wall_lag)
        patch.setattr(limiter, "_monotonic", lambda: int(clock.milliseconds) - 1_799_999_000_000)
        yield clock


@asynccontextmanager
async def replicas(count: int, *, url: str, per_minute: int, policy: str) -> AsyncIterator[list[RateLimiter]]:
    """Yield limits that share their state only through Redis."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(redis.connected(url)) for _ in range(count)]
        yield [RateLimiter(policy, per_minute, client) for client in clients]
