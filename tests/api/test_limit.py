"""One limit: what it admits, over how many processes, and how seldom it asks Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from random import Random
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyrate_limiter import GCRA, Duration, Rate
from redis.asyncio import Redis

from service.core.redis import RedisClient
from service.ratelimit import limiter
from service.ratelimit.limiter import LimitDecision, RateLimiter
from tests.support.clocks import Clock, replicas, stopped_clock

WHERE = ["redis", "process"]


@pytest.fixture
def clock() -> Iterator[Clock]:
    with stopped_clock() as clock:
        yield clock


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty Redis."""
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
        yield redis


@pytest.fixture
async def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The calls that are made of Redis, from here on."""
    made: list[object] = []
    call = RedisClient.call

    def counted(self: RedisClient, work: object) -> object:
        made.append(work)
        return call(self, work)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisClient, "call", counted)
    return made


async def admitted(limit: RateLimiter, count: int, *, key: str = "ada") -> int:
    verdicts = await asyncio.gather(*(limit.check(key) for _ in range(count)))
    return sum(not verdict.retry_after for verdict in verdicts)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("per_minute", [1, 7, 10, 100, 1000])
async def test_a_burst_up_to_the_limit_is_admitted_then_one_per_refilled_permit(
    clock: Clock, redis: Redis, redis_url: str, where: str, per_minute: int
) -> None:
    url = redis_url if where == "redis" else ""
    async with replicas(1, url=url, per_minute=per_minute, policy="requests") as (limit,):
        assert await admitted(limit, per_minute + 20) == per_minute
        begun = clock.milliseconds
        for n in range(1, 6):
            clock.milliseconds = begun + n * 60_000 / per_minute - 2
            assert await admitted(limit, 2) == 0
            clock.pass_by(5)  # the roundings to milliseconds
            assert await admitted(limit, 3) == 1
        clock.pass_by(60_001)
        assert await admitted(limit, per_minute + 20) == per_minute


@pytest.mark.parametrize("where", WHERE)
async def test_a_decision_has_the_remaining_permits_and_the_refill_time(
    clock: Clock, redis: Redis, redis_url: str, where: str
) -> None:
    url = redis_url if where == "redis" else ""
    async with replicas(1, url=url, per_minute=6, policy="requests") as (limit,):
        decisions = [await limit.check("ada") for _ in range(8)]
        assert [one.remaining for one in decisions] == [5, 4, 3, 2, 1, 0, 0, 0]
        assert [one.reset for one in decisions] == [10, 20, 30, 40, 50, 60, 60, 60]
        assert [one.retry_after for one in decisions] == [0, 0, 0, 0, 0, 0, 10, 10]
        assert {(one.policy, one.limit) for one in decisions} == {("requests", 6)}
        clock.pass_by(9_500)
        assert (await limit.check("ada")).retry_after == 1
        assert (await limit.check("bob")).remaining == 5


async def test_a_refusal_for_permits_that_others_used_has_retry_after(
    clock: Clock, redis: Redis, redis_url: str
) -> None:
    async with replicas(2, url=redis_url, per_minute=6, policy="requests") as (one, other):
        assert await admitted(one, 6) == 6
        verdict = await other.check("ada")
        assert (verdict.retry_after, verdict.remaining, verdict.reset) == (10, 0, 60)


async def test_several_processes_admit_no_more_than_one(clock: Clock, redis: Redis, redis_url: str) -> None:
    async with replicas(4, url=redis_url, per_minute=100, policy="requests") as limits:
        assert sum(await asyncio.gather(*(admitted(limit, 100) for limit in limits))) == 100


Step = tuple[int, int, float]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),  # which process
        st.sampled_from([1, 1, 2, 5, 30, 130]),  # how many at once
        st.one_of(st.just(0.0), st.floats(0, 3000), st.floats(0, 60_000)),  # how much later
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps=STEPS, per_minute=st.sampled_from([1, 7, 10, 23, 30, 60, 100, 333]), count=st.integers(1, 5))
async def test_replicas_together_admit_what_one_gcra_admits(
    redis_url: str, steps: list[Step], per_minute: int, count: int
) -> None:
    times: list[int] = []
    async with replicas(count, url=redis_url, per_minute=per_minute, policy=uuid4().hex) as limits:
        with stopped_clock() as clock:
            for which, requests, later in steps:
                clock.pass_by(later)
                times += [int(clock.milliseconds)] * await admitted(limits[which % count], requests)
    state: tuple[float, ...] = (0,)
    for now in times:
        state, decision = GCRA().step([Rate(per_minute, Duration.MINUTE)], state, now, 1)
        assert decision.allowed


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("load", [0.5, 0.95, 1.0])
async def test_even_load_within_the_limit_is_refused_seldom(
    clock: Clock, redis: Redis, redis_url: str, count: int, load: float
) -> None:
    """Where each process sees a share of the requests, for ten minutes."""
    requests = int(1000 * load)
    async with replicas(count, url=redis_url, per_minute=100, policy="requests") as limits:
        passed = 0
        for n in range(requests):
            clock.pass_by(600 / load)
            passed += await admitted(limits[n % count], 1)
    assert passed >= 0.97 * requests


async def test_unused_permits_are_returned(clock: Clock, redis: Redis, redis_url: str) -> None:
    async with replicas(2, url=redis_url, per_minute=100, policy="requests") as (idle, busy):
        assert await admitted(idle, 1) == 1  # leases ten, spends one
        clock.pass_by(6_001)
        assert await admitted(busy, 200) == 100
        assert await admitted(idle, 1) == 0


async def test_a_single_user_calls_redis_rarely(
    clock: Clock, redis: Redis, redis_url: str, calls: list[object]
) -> None:
    async with replicas(1, url=redis_url, per_minute=100, policy="requests") as (limit,):
        calls.clear()
        assert await admitted(limit, 70) == 70
        assert len(calls) <= 4
        clock.pass_by(60_001)
        calls.clear()
        for _ in range(200):
            clock.pass_by(1_200)
            assert await admitted(limit, 1) == 1
        assert len(calls) <= 0.06 * 200


async def test_processes_that_alternate_keep_their_leased_permits(
    clock: Clock, redis: Redis, redis_url: str, calls: list[object]
) -> None:
    """A permit holds as long as what was leased before it is not refilled, not only for its own share of the time."""
    async with replicas(5, url=redis_url, per_minute=100, policy="requests") as limits:
        calls.clear()
        for n in range(400):
            clock.pass_by(1_200)
            assert await admitted(limits[n % 5], 1) == 1
        assert len(calls) <= 0.25 * 400


@pytest.mark.parametrize(("count", "early"), [(2, 0.01), (5, 0.06), (10, 0.08)])
async def test_a_whole_limit_at_once_over_several_processes_is_refused_early_by_some_per_cent(
    clock: Clock, redis: Redis, redis_url: str, count: int, early: float
) -> None:
    chance, users = Random(1), 30
    async with replicas(count, url=redis_url, per_minute=100, policy="requests") as limits:
        passed = 0
        for user in range(users):
            for _ in range(100):
                passed += await admitted(chance.choice(limits), 1, key=f"user:{user}")
    assert (1 - early) * users * 100 <= passed <= users * 100


async def test_a_new_process_does_not_claim_permits_that_others_used(
    clock: Clock, redis: Redis, redis_url: str
) -> None:
    async with replicas(2, url=redis_url, per_minute=100, policy="requests") as (one, other):
        assert await admitted(one, 60) == 60
        decision = await other.check("ada")
        assert decision.remaining <= 39
        assert decision.reset >= 37
        clock.pass_by(60_001)
        assert [(await other.check("ada")).remaining for _ in range(3)] == [99, 98, 97]


async def test_users_at_the_same_time_share_a_round_trip(
    clock: Clock, redis: Redis, redis_url: str, calls: list[object]
) -> None:
    async with replicas(2, url=redis_url, per_minute=1, policy="requests") as (limit, other):
        calls.clear()
        async with asyncio.timeout(10):
            verdicts = await asyncio.gather(*(limit.check(f"user:{n}") for n in range(80)))
        assert not any(verdict.retry_after for verdict in verdicts)
        assert len(calls) == 2
        verdicts = await asyncio.gather(*(other.check(f"user:{n}") for n in range(300)))
        assert [verdict.retry_after > 0 for verdict in verdicts] == [True] * 80 + [False] * 220


async def test_a_redis_key_of_another_type_disables_only_its_own_limit(
    clock: Clock, redis: Redis, redis_url: str
) -> None:
    async with replicas(2, url=redis_url, per_minute=5, policy="requests") as limits:
        await redis.rpush("limit:requests:user:1", "x")
        for one, passes in zip(limits, [[5, 5, 5, 5], [0, 5, 0, 0]], strict=True):
            assert await asyncio.gather(*(admitted(one, 9, key=f"user:{n}") for n in range(4))) == passes


async def test_a_caller_that_leaves_costs_waiting_callers_no_permits(redis: Redis, redis_url: str) -> None:
    async with replicas(1, url=redis_url, per_minute=5, policy="requests") as (limit,):
        asked = [asyncio.create_task(limit.check(f"user:{n}")) for n in range(20)]
        await asyncio.sleep(0)
        for n in (0, 1, 7):
            asked[n].cancel()
        async with asyncio.timeout(10):
            results = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(results[n], LimitDecision) for n in range(20) if n not in {0, 1, 7}] == [True] * 17
        assert (await limit.check("user:20")).remaining == 4
        assert await redis.exists("limit:requests:user:20", "limit:requests:user:19") == 2


@pytest.mark.parametrize("where", WHERE)
async def test_a_clock_that_is_set_back_locks_nobody_out(
    clock: Clock, redis: Redis, redis_url: str, where: str
) -> None:
    url = redis_url if where == "redis" else ""
    async with replicas(1, url=url, per_minute=10, policy="requests") as (limit,):
        assert await admitted(limit, 5) == 5
        clock.wall_lag = 3_600_000
        assert await admitted(limit, 8) == 5
        decision = await limit.check("ada")
        assert (decision.retry_after, decision.reset) == (6, 60)
        clock.pass_by(6_000)
        assert await admitted(limit, 2) == 1


async def test_a_refusal_is_remembered_until_its_time(
    clock: Clock, redis: Redis, redis_url: str, calls: list[object]
) -> None:
    async with replicas(2, url=redis_url, per_minute=10, policy="requests") as (one, other):
        assert await admitted(one, 10) == 10
        assert await admitted(other, 1) == 0
        calls.clear()
        assert await admitted(one, 5) == await admitted(other, 5) == 0
        clock.pass_by(5_990)
        assert (await one.check("ada")).retry_after == (await other.check("ada")).retry_after == 1
        assert not calls
        clock.pass_by(11)
        assert await admitted(other, 1) == 1
        assert len(calls) == 1


async def test_keys_expire(redis: Redis, redis_url: str) -> None:
    async with replicas(1, url=redis_url, per_minute=100, policy="requests") as (limit,):
        await limit.check("ada")
        (key,) = await redis.keys("limit:*")
        assert key == b"limit:requests:ada"
        assert 60_000 < await redis.pttl(key) <= 120_000


@pytest.mark.parametrize("lost", ["script_flush", "flushall"])
async def test_keys_and_scripts_that_redis_loses_are_created_again(
    clock: Clock, redis: Redis, redis_url: str, lost: str
) -> None:
    async with replicas(1, url=redis_url, per_minute=100, policy="requests") as (limit,):
        assert await admitted(limit, 60) == 60
        await getattr(redis, lost)()
        assert await admitted(limit, 60) == 40
        assert await redis.exists("limit:requests:ada")
        clock.pass_by(6_001)
        assert await admitted(limit, 60) == 10


async def test_a_process_keeps_so_many_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "MAX_KEYS", 10)
    limit = RateLimiter("requests", 2, None)
    for n in range(1000):
        await limit.check(f"address:{n}")
        await limit.check("ada")
    assert len(limit._states) == 10
    assert await admitted(limit, 1) == 0  # who asks often is not forgotten
