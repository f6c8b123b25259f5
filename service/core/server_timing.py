"""How long a request waits for each part of the system, for the response header `Server-Timing`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_milliseconds: ContextVar[dict[str, float] | None] = ContextVar("milliseconds", default=None)


def begin() -> dict[str, float]:
    """Return the milliseconds by part, to which this task and the tasks that it starts from now on add."""
    milliseconds: dict[str, float] = {}
    _milliseconds.set(milliseconds)
    return milliseconds


@contextmanager
def measured(part: str) -> Iterator[None]:
    """Add the duration of a block to a part."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        if (milliseconds := _milliseconds.get()) is not None:
            milliseconds[part] = milliseconds.get(part, 0.0) + (time.perf_counter() - begun) * 1000


class Stopwatch:
    """The total duration of several blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the duration of a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun
