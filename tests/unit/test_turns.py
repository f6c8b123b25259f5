"""How many do the same at once: in all, and of one user."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import UnavailableError


def refused(turns: ConcurrencyLimiter, user_id: int) -> bool:
    try:
        with turns.slot(user_id):
            return False
    except UnavailableError as error:
        return error.retry_after > 0 and "as many meals" in error.detail


async def test_one_has_a_share_and_all_have_the_whole() -> None:
    turns = ConcurrencyLimiter("meals", most=3, of_one=2)
    with ExitStack() as stack:
        for user_id in (1, 1):
            stack.enter_context(turns.slot(user_id))
        assert refused(turns, 1)
        assert not refused(turns, 2)
        with turns.slot(2):
            assert refused(turns, 3)
        assert not refused(turns, 3)
    assert not refused(turns, 1)


async def test_a_turn_ends_with_an_error_too_and_its_end_is_waited_for() -> None:
    turns = ConcurrencyLimiter("meals", most=1, of_one=1)
    await turns.ended()

    def fail() -> None:
        with turns.slot(1):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with turns.slot(2):
        waiting = asyncio.create_task(turns.ended())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert not refused(turns, 1)


async def test_a_turn_is_waited_for_but_not_for_ever() -> None:
    turns = ConcurrencyLimiter("meals", most=2, of_one=1)
    order: list[str] = []

    async def eat() -> None:
        async with turns.slot_within(60, 1):
            order.append("second")

    with turns.slot(1):
        waiting = asyncio.create_task(eat())
        async with turns.slot_within(0, 2):
            with pytest.raises(UnavailableError):
                await turns.slot_within(0.01, 1).__aenter__()
        order.append("first")
    await waiting
    assert order == ["first", "second"]
