"""Limits on how many operations of one kind run at once, in total and per key."""

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
    """A count of the slots in use, with one bound for the total and one per key."""

    def __init__(self, *, total: int, per_key: int) -> None:
        self._total, self._per_key = total, per_key
        self._used_by_key: Counter[Key] = Counter()
        self.used = 0

    def exhausted(self, key: Key) -> Literal["total", "key"] | None:
        """Return which bound leaves the key no slot."""
        if self.used >= self._total:
            return "total"
        return "key" if self._used_by_key[key] >= self._per_key else None

    def acquire(self, key: Key) -> None:
        """Count one more slot in use; the caller checks the bounds."""
        self._used_by_key[key] += 1
        self.used += 1

    def release(self, key: Key) -> None:
        """Count one slot less, and forget a key that uses none."""
        self.used -= 1
        self._used_by_key[key] -= 1
        if not self._used_by_key[key]:
            del self._used_by_key[key]

    @contextmanager
    def slot(self, key: Key) -> Iterator[None]:
        """Hold a slot for the length of a block."""
        self.acquire(key)
        try:
            yield
        finally:
            self.release(key)


class ConcurrencyLimiter:
    """A limit on how many operations of one kind run at once, in total and per user."""

    def __init__(self, name: str, *, total: int, per_user: int) -> None:
        self._name = name
        self._slots = Slots[int](total=total, per_key=per_user)
        self._idle = asyncio.Event()
        self._idle.set()
        self._next_release = asyncio.Event()

    @contextmanager
    def slot(self, user_id: int) -> Iterator[None]:
        """Hold a slot for the length of a block. Raises UnavailableError if none is free."""
        if self._slots.exhausted(user_id):
            raise UnavailableError(f"Too many {self._name} at once.", retry_after=RETRY_SECONDS)
        self._idle.clear()
        try:
            with self._slots.slot(user_id):
                yield
        finally:
            if not self._slots.used:
                self._idle.set()
            self._next_release.set()
            self._next_release = asyncio.Event()

    @asynccontextmanager
    async def slot_within(self, seconds: float, user_id: int) -> AsyncIterator[None]:
        """Hold a slot, and wait up to `seconds` for one. Raises UnavailableError if none becomes free."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._slots.exhausted(user_id):
                    await self._next_release.wait()
        with self.slot(user_id):
            yield

    async def wait_until_idle(self) -> None:
        """Wait until no slot is in use."""
        await self._idle.wait()
