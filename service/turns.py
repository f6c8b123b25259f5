"""How many of one kind of work are done at once, in all and for one user."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from service.errors import UnavailableError

RETRY_SECONDS = 5


class Turns:
    """Gives turns to so many; who comes then is asked to come again."""

    def __init__(self, what: str, *, most: int, of_one: int) -> None:
        self._what = what
        self._most, self._of_one = most, of_one
        self._running: Counter[int] = Counter()
        self._none = asyncio.Event()
        self._none.set()
        self._next_end = asyncio.Event()

    @contextmanager
    def turn(self, user_id: int) -> Iterator[None]:
        """Do something as one of those; UnavailableError where there are too many."""
        if self._full(user_id):
            raise UnavailableError(f"There are as many {self._what} as may be at once.", retry_after=RETRY_SECONDS)
        self._running[user_id] += 1
        self._none.clear()
        try:
            yield
        finally:
            self._running[user_id] -= 1
            self._running += Counter()  # without those that came to nothing
            if not self._running:
                self._none.set()
            self._next_end.set()
            self._next_end = asyncio.Event()

    @asynccontextmanager
    async def turn_within(self, seconds: float, user_id: int) -> AsyncIterator[None]:
        """Do so when there is room, waiting so long for it at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._full(user_id):
                    await self._next_end.wait()
        with self.turn(user_id):
            yield

    def _full(self, user_id: int) -> bool:
        return self._running[user_id] >= self._of_one or self._running.total() >= self._most

    async def ended(self) -> None:
        """Wait until none is under way."""
        await self._none.wait()
