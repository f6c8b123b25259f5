"""One subscriber: who it is, how far it has come, and what waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.core.viewer import Viewer
from service.events.event import Event
from service.events.position import Position, Snapshot

QUEUE_EVENTS = 256
QUEUE_BYTES = 160 * 1024
QUIET_SECONDS = 15.0
UNAUTHORIZED, GONE, STUCK = 4401, 4403, 4408
"""Why a subscriber's time is over: the close codes of a WebSocket."""


class EndedError(Exception):
    """The subscriber's time is over."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Wanted:
    """What a subscriber has narrowed its events to; None is everything."""

    user_id: int | None = None
    status: frozenset[str] | None = None

    def takes(self, event: Event) -> bool:
        """Whether it is one of them: by its owner, or its status, now or before."""
        return (self.user_id is None or self.user_id in event.owners) and (
            self.status is None or not self.status.isdisjoint(event.statuses)
        )


@dataclass(eq=False)
class Subscriber:
    """One who listens: who it is, how far it has come, what waits for it.

    direct: writes an event at once and says whether it could.
    expires_at: by time.time().
    """

    viewer: Viewer
    position: Position
    expires_at: float
    direct: Callable[[Event], bool] = lambda _event: False
    wanted: Wanted | None = None
    ended: int = 0
    overflowed: bool = True
    _idle: bool = False
    _queue: list[Event] = field(default_factory=list)  # short, and an empty deque takes 760 bytes, as an Event does
    _bytes: int = 0
    _woken: bool = False
    _waiter: asyncio.Future[None] | None = None
    seen: Snapshot = field(init=False)

    def begin(self) -> None:
        """Keep what is offered from here on."""
        self._queue.clear()
        self._bytes, self.overflowed = 0, False

    def go_live(self) -> None:
        """Say that all up to the position was read from the table: what is offered of that is not new."""
        self.seen = self.position.seen

    def offer(self, event: Event) -> None:
        """Take an event that the viewer may see."""
        if self.overflowed or (self.wanted and not self.wanted.takes(event)):
            return
        if self._idle:
            if event.id <= self.seen.newest_id and not self.seen.missed(
                event.id, event.xid
            ):  # the first half alone is cheap
                return
            if not self.is_ahead_of(event):
                if self.direct(event):
                    self.position = event.position
                    return
                self.position = event.before
            self._idle = False
        self._queue.append(event)
        self._bytes += len(event.body)
        if len(self._queue) > QUEUE_EVENTS or self._bytes > QUEUE_BYTES:
            self.overflow()
        self._wake()

    def is_ahead_of(self, event: Event) -> bool:
        """Whether it has read what the event's own position takes for unread: some of what has a greater id."""
        return event.id <= self.seen.newest_id and event.position.seen.is_older_than(self.seen)

    def overflow(self) -> None:
        """Let go of what waits: it is read from the table again, from the position on."""
        self._queue.clear()
        self._bytes, self.overflowed, self._idle = 0, True, False
        self._wake()

    def end(self, code: int) -> None:
        """End the subscription."""
        self.ended = self.ended or code
        self._idle = False
        self._wake()

    def check(self) -> None:
        """EndedError where its time is over."""
        if not self.ended and time.time() >= self.expires_at:
            self.ended = UNAUTHORIZED
        if self.ended:
            raise EndedError(self.ended)

    def take(self) -> Event | None:
        """Give the next event that waits and was not read already."""
        while self._queue:
            event = self._queue.pop(0)
            self._bytes -= len(event.body)
            if self.seen.missed(event.id, event.xid):
                return event
        return None

    async def wait(self) -> bool:
        """Wait until something happens; False where nothing does for QUIET_SECONDS."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._idle, self._waiter = True, loop.create_future()
            wait_seconds = min(QUIET_SECONDS, max(0.0, self.expires_at - time.time()))
            timer = loop.call_later(wait_seconds, self._stir)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._idle, self._waiter = False, None
        woken, self._woken = self._woken, False
        return woken

    def _wake(self) -> None:
        self._woken = True
        self._stir()

    def _stir(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
