"""Slots for work that users compete for, one per key, granted to the waiting keys in rotation."""

from __future__ import annotations

import asyncio
from collections import deque

from service.core.errors import UnavailableError


class FairSlots:
    """A fixed number of slots with a queue that is bounded in total and per key.

    A free slot goes to the key that has waited longest since its last slot. A key therefore waits for at most one
    operation of every other key, however many each of them has queued. Half of the queue is reserved for keys that do
    not wait yet, so that a few keys cannot fill it.
    """

    def __init__(self, name: str, *, slots: int, max_waiting: int, max_waiting_per_key: int) -> None:
        self._name = name
        self._free = slots
        self._max_waiting, self._max_waiting_per_key = max_waiting, max_waiting_per_key
        self._holders: set[str] = set()
        self._waiting: dict[str, deque[asyncio.Event]] = {}  # in the order of the rotation

    async def acquire(self, key: str) -> None:
        """Wait for a slot, which the caller releases. Raises UnavailableError if the queue is full."""
        if self._free and key not in self._holders:  # then no other key waits
            self._take(key)
            return
        if self._is_full(key):
            raise UnavailableError(f"Too many {self._name} at once.")
        granted = asyncio.Event()
        self._waiting.setdefault(key, deque()).append(granted)
        try:
            await granted.wait()
        except asyncio.CancelledError:
            if granted.is_set():
                self.release(key)
            else:
                self._dequeue(key, granted)
            raise

    def release(self, key: str) -> None:
        """Free the slot of a key, and move the key to the end of the rotation."""
        self._holders.remove(key)
        self._free += 1
        if key in self._waiting:
            self._waiting[key] = self._waiting.pop(key)
        next_key = next((waiting for waiting in self._waiting if waiting not in self._holders), None)
        if next_key is not None:
            granted = self._waiting[next_key][0]
            self._dequeue(next_key, granted)
            self._take(next_key)
            granted.set()

    def _is_full(self, key: str) -> bool:
        total = sum(len(queue) for queue in self._waiting.values())
        if key not in self._waiting:
            return total >= self._max_waiting
        return total >= self._max_waiting // 2 or len(self._waiting[key]) >= self._max_waiting_per_key

    def _take(self, key: str) -> None:
        self._free -= 1
        self._holders.add(key)

    def _dequeue(self, key: str, granted: asyncio.Event) -> None:
        self._waiting[key].remove(granted)
        if not self._waiting[key]:
            del self._waiting[key]
