"""How many of one kind of work are done at once, in all and for one user."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Generic, Literal, TypeVar

from service.core.errors import UnavailableError

RETRY_SECONDS = 5

Key = TypeVar("Key", bound=Hashable)


class Slots(Generic[Key]):
    """Counts what is in use, in all and for each key, and says which bound is reached."""

    def __init__(self, *, most: int, of_one: int) -> None:
        self._most, self._of_one = most, of_one
        self._held: Counter[Key] = Counter()
        self.total = 0

    def full(self, key: Key) -> Literal["all", "one"] | None:
        """Return which bound has no slot left for the key: the one of all, or the key's own."""
        if self.total >= self._most:
            return "all"
        return "one" if self._held[key] >= self._of_one else None

    def acquire(self, key: Key) -> None:
        """Count one more."""
        self._held[key] += 1
        self.total += 1

    def release(self, key: Key) -> None:
        """Count one less, and forget a key that holds none."""
        self.total -= 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    @contextmanager
    def held(self, key: Key) -> Iterator[None]:
        """Hold a slot for the length of a block."""
        self.acquire(key)
        try:
            yield
        finally:
            self.release(key)


class ConcurrencyLimiter:
    """Gives turns to so many; who comes then is asked to come again."""

    def __init__(self, what: str, *, most: int, of_one: int) -> None:
        self._what = what
        self._slots = Slots[int](most=most, of_one=of_one)
        self._none = asyncio.Event()
        self._none.set()
        self._next_end = asyncio.Event()

    @contextmanager
    def slot(self, user_id: int) -> Iterator[None]:
        """Do something as one of those; UnavailableError where there are too many."""
        if self._slots.full(user_id):
            raise UnavailableError(f"There are as many {self._what} as may be at once.", retry_after=RETRY_SECONDS)
        self._none.clear()
        try:
            with self._slots.held(user_id):
                yield
        finally:
            if not self._slots.total:
                self._none.set()
            self._next_end.set()
            self._next_end = asyncio.Event()

    @asynccontextmanager
    async def slot_within(self, seconds: float, user_id: int) -> AsyncIterator[None]:
        """Do so when there is room, waiting so long for it at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._slots.full(user_id):
                    await self._next_end.wait()
        with self.slot(user_id):
            yield

    async def ended(self) -> None:
        """Wait until none is under way."""
        await self._none.wait()
