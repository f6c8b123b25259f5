"""Measures what the rate limit costs a request: `python -m tests.benchmarks.limits [--requests N] [--rounds N]`.

Prints the microseconds of a check counted in the process alone, and those that others take beyond that: of the
service's CPU, which other requests then lack, and on the clock, which this one waits; and how many calls of Redis there
are for a request. The limit is the default. Users ask all at once, or evenly, at a share of the limit, of one process
or alternately of several; where many ask at the same time, what they lease shares round trips. The measurement moves
the limits' clock; the event loop is the service's. Then it prints how many of a whole limit's requests, sent at once to
processes drawn at random, are refused early. Each round measures all cases, and the medians of the rounds are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import uvloop

from service.core import redis
from service.core.redis import RedisClient
from service.core.settings import Settings
from service.ratelimit.limiter import RateLimiter
from tests.support.clocks import Clock, stopped_clock
from tests.support.redis_server import RedisServer

DEFAULT: int = Settings.model_fields["rate_limit_per_minute"].default
ONE_EACH = 2  # a limit whose leases are of one permit


@dataclass(frozen=True)
class Case:
    """How many users ask how often: `pause` milliseconds after each request, and a minute after `until` of them.

    mixed: at random moments, each user at a load of its own between a tenth and all of the limit, of any process.
    """

    name: str
    processes: int = 1
    users: int = 1
    per_minute: int = DEFAULT
    load: float = 0.0
    until: int = 1_000_000
    mixed: bool = False

    @property
    def pause(self) -> float:
        """Return the milliseconds between two requests of one user."""
        return 60_000 / self.per_minute / self.load if self.load else 0.0


ALONE = Case("in the process alone", processes=0, until=DEFAULT)
ALONE_TOGETHER = Case("in the process alone, 50 users", processes=0, users=50, until=DEFAULT)
CASES = [
    ALONE,
    ALONE_TOGETHER,
    Case("70 at once", until=70),
    Case("a whole limit at once", until=DEFAULT),
    *(Case(f"evenly at {load:.0%}", load=load) for load in (0.1, 0.3, 0.5, 0.7, 1.0)),
    *(Case(f"evenly at {load:.0%}, 5 processes", load=load, processes=5) for load in (0.3, 0.5, 0.7)),
    *(
        Case(f"10 users, mixed, {processes} processes", users=10, processes=processes, mixed=True)
        for processes in (1, 2)
    ),
    Case("50 users at 50%", load=0.5, users=50),
    Case("50 users at 10%", load=0.1, users=50),
    Case("50 users at 50%, 5 processes", load=0.5, users=50, processes=5),
    Case("a call each", per_minute=ONE_EACH, until=ONE_EACH),
    Case("a call each, 50 users", per_minute=ONE_EACH, until=ONE_EACH, users=50),
]


class Counted:
    """Counts the calls of Redis while it stands in for the client's own."""

    def __init__(self) -> None:
        self.calls = 0
        self._call = RedisClient.call

    def __enter__(self) -> Counted:
        def call(client: RedisClient, work: object) -> object:
            self.calls += 1
            return self._call(client, work)  # type: ignore[arg-type]

        RedisClient.call = call  # type: ignore[assignment, method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        RedisClient.call = self._call  # type: ignore[method-assign]


@asynccontextmanager
async def processes(url: str, count: int, *, per_minute: int = DEFAULT) -> AsyncIterator[list[RateLimiter]]:
    """Make limits that know of each other by Redis alone; one that knows none, where there are none."""
    policy = uuid4().hex
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(redis.connected(url)) for _ in range(count)]
        yield [RateLimiter(policy, per_minute, client) for client in clients or [None]]
        assert all(client and client.available for client in clients)


async def cost(url: str, case: Case, *, requests: int) -> tuple[float, float, float]:
    """Return CPU and clock microseconds and the calls of Redis of a check."""
    with stopped_clock() as clock, Counted() as counted:
        async with processes(url, case.processes, per_minute=case.per_minute) as limits:
            counted.calls = 0
            worked, begun = time.process_time(), time.perf_counter()
            refused = await _ask(limits, clock, case, requests_per_user=requests // case.users)
            elapsed = time.process_time() - worked, time.perf_counter() - begun
            assert refused <= 0.03 * requests
            return elapsed[0] / requests * 1e6, elapsed[1] / requests * 1e6, counted.calls / requests


async def _ask_mixed(limits: list[RateLimiter], clock: Clock, case: Case, *, requests: int) -> int:
    """Ask at random moments, one request after the other; the users' loads are a tenth of the limit, two tenths, …"""
    chance = random.Random(42)
    loads = [(user + 1) / case.users for user in range(case.users)]
    users = chance.choices(range(case.users), loads, k=requests)
    pause = 60_000 / case.per_minute / sum(loads)
    refused = 0
    for user in users:
        refused += (await chance.choice(limits).check(f"user:{user}")).retry_after > 0
        clock.pass_by(chance.expovariate(1 / pause))
    return refused


async def _ask(limits: list[RateLimiter], clock: Clock, case: Case, *, requests_per_user: int) -> int:
    refused = 0
    if case.mixed:
        return await _ask_mixed(limits, clock, case, requests=requests_per_user * case.users)
    for n in range(requests_per_user):
        limit = limits[n % len(limits)]
        if case.users == 1:
            refused += (await limit.check(f"user:{n // case.until}")).retry_after > 0
        else:
            keys = [f"user:{n // case.until}:{user}" for user in range(case.users)]
            refused += sum(one.retry_after > 0 for one in await asyncio.gather(*map(limit.check, keys)))
        if case.pause:
            clock.pass_by(case.pause)
    return refused


async def refused_early(url: str, *, count: int, bursts: int) -> float:
    """Return the share of a whole limit at once that is refused where so many processes share it."""
    refused = 0
    async with processes(url, count) as limits:
        with stopped_clock():
            for n in range(bursts):
                asked = (random.choice(limits).check(f"user:{n}") for _ in range(DEFAULT))
                refused += sum([(await one).retry_after > 0 for one in asked])
    return refused / bursts / DEFAULT


async def measure(url: str, *, requests: int, rounds: int) -> None:
    """Measure and print."""
    redis.TIMEOUT_SECONDS = 10  # a busy machine does not make one case another
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for case in CASES:
            found.setdefault(case.name, []).append(await cost(url, case, requests=requests))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for case in CASES:
        alone = medians[ALONE.name if case.users == 1 or case.mixed else ALONE_TOGETHER.name]
        cpu, clock, calls = medians[case.name]
        if case.processes:
            beyond = f"CPU {cpu - alone[0]:+7.1f} µs   clock {clock - alone[1]:+7.1f} µs"
        else:
            beyond = f"CPU {cpu:7.1f} µs   clock {clock:7.1f} µs"
        print(f"{case.name:32} {beyond}   calls {calls:.3f}")
    for count in (2, 5, 10):
        print(f"refused early, {count} processes: {await refused_early(url, count=count, bursts=50):.1%}")


def main() -> None:
    """Read the arguments, start a Redis, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with RedisServer() as server:
        uvloop.run(measure(server.url, requests=arguments.requests, rounds=arguments.rounds))


if __name__ == "__main__":
    main()
