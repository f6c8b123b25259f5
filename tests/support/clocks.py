"""A clock that a test moves, in place of both of the limits' own, and limits that each stand for one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest

from service.core import redis
from service.ratelimit import limiter
from service.ratelimit.limiter import Limit


class Clock:
    """Milliseconds; stands still until it is moved. The wall's may be `behind`."""

    def __init__(self) -> None:
        self.milliseconds = 1_800_000_000_000.0
        self.wall_lag = 0

    def pass_by(self, milliseconds: float) -> None:
        """Move on."""
        self.milliseconds += milliseconds


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Stop the clock of all limits; what is on its way to Redis is not timed by it."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiter, "_now", lambda: int(clock.milliseconds) - clock.wall_lag)
        patch.setattr(limiter, "_monotonic", lambda: int(clock.milliseconds) - 1_799_999_000_000)
        yield clock


@asynccontextmanager
async def replicas(count: int, *, url: str, per_minute: int, policy: str) -> AsyncIterator[list[Limit]]:
    """Make limits that know of each other by Redis alone."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(redis.connected(url)) for _ in range(count)]
        yield [Limit(policy, per_minute, client) for client in clients]
