"""A subscriber to events: its viewer, its position, its filter and its queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.core.close_codes import UNAUTHORIZED
from service.core.viewer import Viewer
from service.events.event import Event
from service.events.position import Position, Snapshot

MAX_QUEUED_EVENTS = 256
MAX_QUEUED_BYTES = 160 * 1024
KEEPALIVE_SECONDS = 15.0


class SubscriptionEndedError(Exception):
    """The subscription has ended, for the reason that the close code names."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class SubscriptionFilter:
    """The events that a subscriber asked for, by owner and status; None matches everything."""

    user_id: int | None = None
    status: frozenset[str] | None = None

    def matches(self, event: Event) -> bool:
        """Return whether the event's owner and its status match, either before or after the change."""
        return (self.user_id is None or self.user_id in event.owners) and (
            self.status is None or not self.status.isdisjoint(event.statuses)
        )


@dataclass(eq=False, slots=True)
class Subscriber:
    """A client that receives events.

    send_frame: sends an event's WebSocket frame without the queue, and returns False if it cannot.
    expires_at: the end of the subscription, by `time.time()`.
    needs_keepalive: whether `wait` returns after KEEPALIVE_SECONDS without an event.
    end_code: the close code of an ended subscription, else 0.
    seen: the snapshot up to which the subscriber has read the table.
    """

    viewer: Viewer
    position: Position
    expires_at: float
    send_frame: Callable[[bytes], bool] = lambda _frame: False
    needs_keepalive: bool = True
    event_filter: SubscriptionFilter | None = None
    end_code: int = 0
    overflowed: bool = True
    _idle: bool = False
    _queue: list[Event] = field(default_factory=list)  # short; an empty deque takes 760 bytes, and so does an Event
    _queued_bytes: int = 0
    _woken: bool = False
    _waiter: asyncio.Future[None] | None = None
    _keepalive_at: float = math.inf  # by `time.monotonic()`
    seen: Snapshot = field(init=False)

    def start_queue(self) -> None:
        """Queue all events that are offered from now on."""
        self._queue.clear()
        self._queued_bytes, self.overflowed = 0, False

    def go_live(self) -> None:
        """Ignore offered events that the subscriber has read from the table already."""
        self.seen = self.position.seen

    def offer(self, event: Event) -> None:
        """Send or queue an event that the viewer may see, if it is new and matches the filter."""
        if self.overflowed or (self.event_filter and not self.event_filter.matches(event)):
            return
        if self._idle:
            # The comparison of ids is cheap and nearly always enough.
            is_recent = event.id <= self.seen.newest_id
            if is_recent and not self.seen.lacks(event.id, event.xid):
                return
            if not is_recent or not self.is_ahead_of(event):
                if self.send_frame(event.websocket_frame):
                    self.position = event.position
                    return
                self.position = event.previous_position
            self._idle = False
        self._queue.append(event)
        self._queued_bytes += len(event.body)
        if len(self._queue) > MAX_QUEUED_EVENTS or self._queued_bytes > MAX_QUEUED_BYTES:
            self.overflow()
        self._wake()

    def is_ahead_of(self, event: Event) -> bool:
        """Return whether the subscriber has read events that the event's own position counts as unread."""
        return event.id <= self.seen.newest_id and event.position.seen.is_older_than(self.seen)

    def overflow(self) -> None:
        """Drop the queue, so that the subscriber reads the table again from its position.

        A client that takes no byte is ended by its connection: `api.websocket_protocol`.
        """
        self._queue.clear()
        self._queued_bytes, self.overflowed, self._idle = 0, True, False
        self._wake()

    def end(self, code: int) -> None:
        """End the subscription with a close code; the first code stays."""
        self.end_code = self.end_code or code
        self._idle = False
        self._wake()

    def raise_if_ended(self) -> None:
        """Raise SubscriptionEndedError if the subscription has ended or expired."""
        if not self.end_code and time.time() >= self.expires_at:
            self.end_code = UNAUTHORIZED
        if self.end_code:
            raise SubscriptionEndedError(self.end_code)

    def pop(self) -> Event | None:
        """Return the next queued event that the subscriber has not read from the table; None if there is none."""
        while self._queue:
            event = self._queue.pop(0)
            self._queued_bytes -= len(event.body)
            if self.seen.lacks(event.id, event.xid):
                return event
        return None

    async def wait(self) -> bool:
        """Wait until there is something to do; return False if it expires, or needs a keep-alive."""
        if not self._woken:
            self._idle, self._waiter = True, asyncio.get_running_loop().create_future()
            self._keepalive_at = time.monotonic() + KEEPALIVE_SECONDS if self.needs_keepalive else math.inf
            try:
                await self._waiter
            finally:
                self._idle, self._waiter = False, None
        woken, self._woken = self._woken, False
        return woken

    def check_time(self, now: float, monotonic_now: float) -> None:
        """Stop waiting if the subscription has expired or a keep-alive is due."""
        if now >= self.expires_at or monotonic_now >= self._keepalive_at:
            self._stop_waiting()

    def _wake(self) -> None:
        self._woken = True
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
