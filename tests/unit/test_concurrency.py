"""The limit of concurrent operations of one kind, in total and per user."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import UnavailableError


def refused(limiter: ConcurrencyLimiter, user_id: int) -> bool:
    try:
        with limiter.slot(user_id):
            return False
    except UnavailableError as error:
        return error.retry_after > 0 and "Too many meals" in error.detail


async def test_one_user_has_a_share_of_the_slots_and_all_users_have_all() -> None:
    limiter = ConcurrencyLimiter("meals", total=3, per_user=2)
    with ExitStack() as stack:
        for user_id in (1, 1):
            stack.enter_context(limiter.slot(user_id))
        assert refused(limiter, 1)
        assert not refused(limiter, 2)
        with limiter.slot(2):
            assert refused(limiter, 3)
        assert not refused(limiter, 3)
    assert not refused(limiter, 1)


async def test_a_slot_is_released_after_an_error_and_ended_waits_for_its_release() -> None:
    limiter = ConcurrencyLimiter("meals", total=1, per_user=1)
    await limiter.wait_until_idle()

    def fail() -> None:
        with limiter.slot(1):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with limiter.slot(2):
        waiting = asyncio.create_task(limiter.wait_until_idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert not refused(limiter, 1)


async def test_waiting_for_a_slot_ends_after_a_timeout() -> None:
    limiter = ConcurrencyLimiter("meals", total=2, per_user=1)
    order: list[str] = []

    async def eat() -> None:
        async with limiter.slot_within(60, 1):
            order.append("second")

    with limiter.slot(1):
        waiting = asyncio.create_task(eat())
        async with limiter.slot_within(0, 2):
            with pytest.raises(UnavailableError):
                await limiter.slot_within(0.01, 1).__aenter__()
        order.append("first")
    await waiting
    assert order == ["first", "second"]
