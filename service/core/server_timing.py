"""How long a request waits for each part of the system, for the response header `Server-Timing`."""

from __future__ import annotations

import time
from contextvars import ContextVar

_milliseconds: ContextVar[dict[str, float] | None] = ContextVar("milliseconds", default=None)


def begin() -> dict[str, float]:
    """Return the milliseconds by part, to which this task and the tasks that it starts from now on add."""
    milliseconds: dict[str, float] = {}
    _milliseconds.set(milliseconds)
    return milliseconds


def add(part: str, seconds: float) -> None:
    """Add a duration to a part."""
    milliseconds = _milliseconds.get()
    if milliseconds is not None:
        milliseconds[part] = milliseconds.get(part, 0.0) + seconds * 1000


class measured:  # noqa: N801
    """A block whose duration is added to a part; as a generator it would take three times as long."""

    __slots__ = ("_begun", "_part")

    def __init__(self, part: str) -> None:
        self._part = part

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        add(self._part, time.perf_counter() - self._begun)


class Stopwatch:
    """The total duration of several blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun
