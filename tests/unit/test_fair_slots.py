"""Slots that keys share: one at a time for each, in rotation, with a bounded queue that leavers leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from service.core.errors import UnavailableError
from service.core.fair_slots import FairSlots


def slots(number: int = 1, *, waiting: int = 64, per_key: int = 10) -> FairSlots:
    return FairSlots("log-ins", slots=number, max_waiting=waiting, max_waiting_per_key=per_key)


async def queued(fair: FairSlots, keys: Iterable[str], order: list[str]) -> list[asyncio.Task[None]]:
    """Let each key ask for a slot, one after the other; `order` says which of them got one."""

    async def ask(key: str) -> None:
        await fair.acquire(key)
        order.append(key)

    tasks = [asyncio.create_task(ask(key)) for key in keys]
    await asyncio.sleep(0)
    return tasks


async def granted(fair: FairSlots, order: list[str], number: int) -> str:
    """Release the slots that were granted, one after the other, until so many were; return who got them, in order."""
    for n in range(number):
        async with asyncio.timeout(10):
            while len(order) <= n:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0)
        fair.release(order[n])
    return "".join(order)


async def test_the_last_key_waits_for_one_slot_of_each_other_key() -> None:
    fair, order = slots(), list[str]()
    await queued(fair, "aaaabbbbc", order)
    assert await granted(fair, order, 9) == "abcababab"


async def test_a_key_that_holds_a_slot_queues_after_the_keys_that_arrived_meanwhile() -> None:
    fair, order = slots(), list[str]()
    await queued(fair, "aab", order)
    assert await granted(fair, order, 3) == "aba"


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_key_holds_one_slot_however_many_are_free(number: int) -> None:
    fair, order = slots(number), list[str]()
    await queued(fair, "aaa", order)
    assert order == ["a"]
    await queued(fair, "bcd", order)
    assert order == ["a", *"bcd"[: number - 1]]
    await granted(fair, order, 6)
    assert sorted(order) == sorted("aaabcd")
    assert fair._free == number


async def test_the_queue_is_bounded_for_each_key() -> None:
    fair, order = slots(per_key=2), list[str]()
    tasks = await queued(fair, "aaaabbb", order)
    refused = [task for task in tasks if task.done() and task.exception()]
    assert refused == [tasks[3], tasks[6]]
    for task in refused:
        with pytest.raises(UnavailableError, match="Too many log-ins at once") as error:
            await task
        assert error.value.retry_after > 0
    assert await granted(fair, order, 5) == "ababa"
    assert fair._free == 1


async def test_a_few_keys_cannot_fill_the_queue_and_many_can() -> None:
    fair, order = slots(waiting=10, per_key=4), list[str]()
    tasks = await queued(fair, "aaaaabbbbcccc", order)
    assert len([task for task in tasks if task.done() and task.exception()]) == 6
    assert {key: len(queue) for key, queue in fair._waiting.items()} == {"a": 4, "b": 1, "c": 1}
    await queued(fair, "defg", order)
    await fair_refuses(fair, "h")
    assert await granted(fair, order, 11) == "abcdefgaaaa"
    await fair.acquire("h")


async def fair_refuses(fair: FairSlots, key: str) -> None:
    with pytest.raises(UnavailableError):
        await fair.acquire(key)


async def test_a_waiter_that_leaves_the_queue_frees_its_place_and_gets_no_slot() -> None:
    fair, order = slots(waiting=3), list[str]()
    holder, *waiting = await queued(fair, "abcd", order)
    await fair_refuses(fair, "e")
    for task in waiting[:2]:
        task.cancel()
    await asyncio.wait(waiting[:2])
    await queued(fair, "ef", order)
    assert await granted(fair, order, 4) == "adef"
    assert holder.done()
    assert (fair._free, fair._waiting, fair._holders) == (1, {}, set())


async def test_a_waiter_that_leaves_as_its_slot_is_granted_passes_the_slot_on() -> None:
    fair, order = slots(), list[str]()
    _, leaving, _ = await queued(fair, "abc", order)
    fair.release("a")
    leaving.cancel()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    while len(order) < 2:  # noqa: ASYNC110 - there is nothing to wait on
        await asyncio.sleep(0)
    assert order == ["a", "c"]
    fair.release("c")
    assert fair._free == 1
