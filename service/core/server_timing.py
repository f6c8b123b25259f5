"""How long a request waits for what it needs, by part; shown as `Server-Timing`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_spent: ContextVar[dict[str, float] | None] = ContextVar("spent", default=None)


def begin() -> dict[str, float]:
    """Give the milliseconds by part that this task, and what it starts from here on, will add to."""
    spent: dict[str, float] = {}
    _spent.set(spent)
    return spent


@contextmanager
def measured(part: str) -> Iterator[None]:
    """Add the time of a block to a part."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        if (spent := _spent.get()) is not None:
            spent[part] = spent.get(part, 0.0) + (time.perf_counter() - begun) * 1000


class Stopwatch:
    """Adds up the time of some blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun
