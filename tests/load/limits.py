"""Measures what the rate limit costs a request: `python -m tests.load.limits [--requests N] [--rounds N]`.

Prints the microseconds of one check counted in the process alone, with permits leased from Redis, and with one call of
Redis each, side by side; each round measures all of them, and the median of the rounds is given. Users spend their
limits one after the other, each at once, so that a call leases a tenth of the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from service import redis_client
from service.limits import LEASES, Limit
from service.redis_client import RedisClient
from tests.redis_server import RedisServer

HIGH, DEFAULT = 1000, 100
ONE_EACH = LEASES - 1  # a tenth of that is less than one permit, and one is leased


async def cost(limit: Limit, *, requests: int) -> float:
    """Give the mean microseconds of a check; none may be refused."""
    begun = time.perf_counter()
    for n in range(requests):
        verdict = await limit.check(f"user:{n // limit.per_minute}")
        assert not verdict.retry_after
    return (time.perf_counter() - begun) / requests * 1e6


def cases(redis: RedisClient, *, name: str) -> dict[str, Limit]:
    """Make limits that nobody has spent anything of."""
    return {
        "in process": Limit(f"alone-{name}", HIGH, None),
        f"leased, {HIGH} a minute": Limit(f"high-{name}", HIGH, redis),
        f"leased, {DEFAULT} a minute": Limit(f"default-{name}", DEFAULT, redis),
        "one call each": Limit(f"each-{name}", ONE_EACH, redis),
    }


async def measure(url: str, *, requests: int, rounds: int) -> dict[str, list[float]]:
    """Give the costs of each round."""
    redis_client.BUDGET_SECONDS = 10  # a busy machine does not make one case another
    costs: dict[str, list[float]] = {}
    async with redis_client.connected(url) as redis:
        assert redis
        for n in range(rounds):
            for name, limit in cases(redis, name=str(n)).items():
                costs.setdefault(name, []).append(await cost(limit, requests=requests))
        assert redis.here
    return costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with RedisServer() as server:
        costs = asyncio.run(measure(server.url, requests=given.requests, rounds=given.rounds))
    alone = statistics.median(costs["in process"])
    for name, rounds in costs.items():
        median = statistics.median(rounds)
        print(f"{name:24} {median:7.1f} µs  {median - alone:+7.1f} µs  ({min(rounds):.1f} to {max(rounds):.1f})")


if __name__ == "__main__":
    main()
