"""Background loops: pauses, early wake-ups, errors and cancellation."""

from __future__ import annotations

import asyncio
from asyncio import timeouts
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from loguru import logger

from service.core import background
from service.core.errors import UnavailableError

HOUR = 3600.0
DEADLINE_SECONDS = 20


class Work:
    """Counts its runs, and fails in those that have an error."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.runs = 0
        self._errors = list(errors)
        self._ran = asyncio.Condition()

    async def __call__(self) -> None:
        self.runs += 1
        async with self._ran:
            self._ran.notify_all()
        if self._errors and (error := self._errors.pop(0)):
            raise error

    async def reach(self, runs: int) -> None:
        """Wait for a number of runs."""
        async with timeouts.timeout(DEADLINE_SECONDS), self._ran:
            await self._ran.wait_for(lambda: self.runs >= runs)


@asynccontextmanager
async def loop(
    seconds: float, work: Callable[[], Awaitable[None]], **options: Any
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(background.run_every(seconds, work, name="cleanup", **options))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the loop makes, each of which ends at once."""
    made: list[float] = []

    def timeout(seconds: float) -> timeouts.Timeout:
        made.append(seconds)
        return timeouts.timeout(0)

    monkeypatch.setattr(asyncio, "timeout", timeout)
    return made


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines that are logged, with their fields and the last line of their trace."""
    logged: list[str] = []

    def keep(message: Any) -> None:
        record = message.record
        error = record["exception"] and repr(record["exception"].value)
        logged.append(f"{record['level'].name} {record['message']} {record['extra']} {error}")

    handler = logger.add(keep, level="TRACE")
    yield logged
    logger.remove(handler)


async def test_a_pause_of_half_to_all_of_the_seconds_comes_before_each_run(pauses: list[float]) -> None:
    work = Work()
    async with loop(HOUR, work):
        await work.reach(50)
    assert len(pauses) >= 50
    assert all(HOUR / 2 <= pause <= HOUR for pause in pauses)
    assert len(set(pauses)) > 1


async def test_the_first_run_waits_only_if_it_should() -> None:
    waiting, immediate = Work(), Work()
    async with loop(HOUR, waiting), loop(HOUR, immediate, at_once=True):
        await immediate.reach(1)
        assert (waiting.runs, immediate.runs) == (0, 1)


async def test_an_event_ends_the_pause_once() -> None:
    work, wake = Work(), asyncio.Event()
    async with loop(HOUR, work, wake=wake):
        for run in (1, 2):
            wake.set()
            await work.reach(run)
            assert not wake.is_set()
            for _ in range(10):
                await asyncio.sleep(0)
            assert work.runs == run


async def test_an_event_during_the_work_causes_another_run() -> None:
    wake, runs = asyncio.Event(), 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        (wake if runs == 1 else again).set()

    async with loop(HOUR, work, wake=wake, at_once=True):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await again.wait()


async def test_a_service_error_is_one_warning_and_the_loop_goes_on(lines: list[str]) -> None:
    error = UnavailableError("not today")
    error.__cause__ = OSError("no route")
    work = Work(error)
    async with loop(0, work):
        await work.reach(2)
    assert lines == ["WARNING cleanup failed {'detail': 'not today', 'cause': \"OSError('no route')\"} None"]


async def test_an_unexpected_exception_is_logged_with_its_trace_and_the_loop_goes_on(lines: list[str]) -> None:
    work = Work(ZeroDivisionError("a defect"), TimeoutError("of the work"))
    async with loop(0, work):
        await work.reach(3)
    assert lines == [
        "ERROR cleanup failed {} ZeroDivisionError('a defect')",
        "ERROR cleanup failed {} TimeoutError('of the work')",
    ]


@pytest.mark.parametrize("at_once", [False, True], ids=["in a pause", "at work"])
async def test_cancellation_ends_the_loop(at_once: bool, lines: list[str]) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with loop(HOUR, work, at_once=at_once) as task:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await (begun.wait() if at_once else asyncio.sleep(0))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert not lines
