"""Signals between the listener, the database pools and the session cache."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

FRESH_SECONDS = 1.0


class PollSignal:
    """The listener's reasons to poll before its interval ends."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._has_commit = False

    def set(self) -> None:
        """Request a poll."""
        self._event.set()

    def on_commit(self) -> None:
        """Request a poll, and a NOTIFY to the other processes, because this process committed a change."""
        self._has_commit = True
        self._event.set()

    def pop_commit(self) -> bool:
        """Return whether this process committed a change since the last call."""
        has_commit, self._has_commit = self._has_commit, False
        return has_commit

    async def wait(self, seconds: float) -> None:
        """Wait for a request, at most `seconds`, and clear it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


class Heartbeat:
    """The time at which the listener last knew of every change of an account."""

    def __init__(self) -> None:
        self._renewed_at = float("-inf")

    def renew(self, at: float) -> None:
        """Record that every change before `at` is known, by `time.monotonic()`."""
        self._renewed_at = at

    def drop(self) -> None:
        """Record that changes may go unnoticed from now on."""
        self._renewed_at = float("-inf")

    def is_fresh(self) -> bool:
        """Return whether every change older than FRESH_SECONDS is known."""
        return time.monotonic() - self._renewed_at < FRESH_SECONDS
