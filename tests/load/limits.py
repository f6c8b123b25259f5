"""Measures what the rate limit costs a request: `python -m tests.load.limits [--requests N] [--rounds N]`.

Prints the microseconds of one check counted in the process alone, with permits leased from Redis, and with one call of
Redis each, side by side: of the service's CPU, which other requests then lack, and on the clock, which this one waits;
each round measures all of them, and the medians of the rounds are given. Users spend their limits one after the other,
each at once, so that a call leases a tenth of the limit. The event loop is the service's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import uvloop

from service import redis_client
from service.limits import LEASES, Limit
from service.redis_client import RedisClient
from tests.redis_server import RedisServer

HIGH, DEFAULT = 1000, 100
ONE_EACH = LEASES - 1  # a tenth of that is less than one permit, and one is leased


async def cost(limit: Limit, *, requests: int) -> tuple[float, float]:
    """Give the mean microseconds of a check, of CPU and on the clock; none may be refused."""
    worked, begun = time.process_time(), time.perf_counter()
    for n in range(requests):
        verdict = await limit.check(f"user:{n // limit.per_minute}")
        assert not verdict.retry_after
    spent = time.process_time() - worked, time.perf_counter() - begun
    return spent[0] / requests * 1e6, spent[1] / requests * 1e6


def cases(redis: RedisClient, *, name: str) -> dict[str, Limit]:
    """Make limits that nobody has spent anything of."""
    return {
        "in process": Limit(f"alone-{name}", HIGH, None),
        f"leased, {HIGH} a minute": Limit(f"high-{name}", HIGH, redis),
        f"leased, {DEFAULT} a minute": Limit(f"default-{name}", DEFAULT, redis),
        "one call each": Limit(f"each-{name}", ONE_EACH, redis),
    }


async def measure(url: str, *, requests: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Give the costs of each round."""
    redis_client.BUDGET_SECONDS = 10  # a busy machine does not make one case another
    costs: dict[str, list[tuple[float, float]]] = {}
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
        costs = uvloop.run(measure(server.url, requests=given.requests, rounds=given.rounds))
    alone = [statistics.median(column) for column in zip(*costs["in process"], strict=True)]
    for name, rounds in costs.items():
        cpu, clock = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:24} CPU {cpu:6.1f} µs {cpu - alone[0]:+7.1f}   clock {clock:6.1f} µs {clock - alone[1]:+7.1f}")


if __name__ == "__main__":
    main()
