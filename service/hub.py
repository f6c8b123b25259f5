"""Hands events to this process's subscribers: what one takes at once directly, else through a bounded queue."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from loguru import logger

from service.core import metrics
from service.core.errors import UnavailableError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.events import Event, Feed, Page, Position, Snapshot

QUEUE_EVENTS = 256
QUEUE_BYTES = 160 * 1024
PAGE_ROWS = 200
READERS = 4  # at once, of the pool's connections, so that requests find some free
QUIET_SECONDS = 15.0
RETRY_SECONDS = 1.0

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


@dataclass(frozen=True)
class Reset:
    """What lies between the subscriber's position and this one is not known any more."""

    position: Position


@dataclass(frozen=True)
class Ready:
    """The subscriber's position is good: what follows goes on from it."""

    position: Position


Item: TypeAlias = "Ready | Reset | Event | None"


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
            patience = min(QUIET_SECONDS, max(0.0, self.expires_at - time.time()))
            timer = loop.call_later(patience, self._stir)
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


class Hub:
    """All subscribers of this process."""

    def __init__(self, db: Executor, feed: Feed) -> None:
        self._db = db
        self._feed = feed
        self._turns = asyncio.Semaphore(READERS)
        self.subscribers: set[Subscriber] = set()
        self._everyones: set[Subscriber] = set()
        self._owners: dict[int, set[Subscriber]] = {}

    @property
    def followed(self) -> bool:
        """Whether anybody is waiting for what happens next."""
        return bool(self._everyones or self._owners)

    async def dispatch(self, events: Iterable[Event]) -> None:
        """Offer events to whom they concern; others get their turn between two events."""
        for event in events:
            await asyncio.sleep(0)
            for subscriber in self._everyones:
                subscriber.offer(event)
            for owner in event.owners:
                for subscriber in self._owners.get(owner, ()):
                    subscriber.offer(event)

    def reread(self) -> None:
        """Have everyone go on from the table: something may not have been offered."""
        for subscriber in self.subscribers:
            subscriber.overflow()

    def restart(self) -> None:
        """Have everyone start anew: what comes next does not go on from what came before."""
        for subscriber in self.subscribers:
            subscriber.position = replace(subscriber.position, epoch="")
        self.reread()

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[AsyncGenerator[Item, None]]:
        """Subscribe; yields all that the subscriber is to be sent, None where nothing happens for QUIET_SECONDS.

        Going on to the next item says that the one before was sent. Raises EndedError.
        """
        self.subscribers.add(subscriber)
        try:
            with metrics.SUBSCRIBERS.track_inprogress():
                yield self._stream(subscriber)
        finally:
            self.subscribers.discard(subscriber)
            self._leave(subscriber)

    def _join(self, subscriber: Subscriber) -> None:
        subscriber.begin()
        if subscriber.viewer.is_admin:
            self._everyones.add(subscriber)
        else:
            self._owners.setdefault(subscriber.viewer.id, set()).add(subscriber)

    def _leave(self, subscriber: Subscriber) -> None:
        self._everyones.discard(subscriber)
        others = self._owners.get(subscriber.viewer.id, set())
        others.discard(subscriber)
        if not others:
            self._owners.pop(subscriber.viewer.id, None)

    async def _stream(self, subscriber: Subscriber) -> AsyncGenerator[Item, None]:
        page = await self._read(subscriber)
        if not page.reset:
            yield Ready(subscriber.position)
        while True:
            async for item in self._caught_up(subscriber, page):
                yield item
            subscriber.go_live()
            while not subscriber.overflowed:
                subscriber.check()
                if event := subscriber.take():
                    if subscriber.is_ahead_of(event):
                        event = self._feed.event_behind(event, subscriber.seen)
                    yield event
                    subscriber.position = event.position
                elif not await subscriber.wait():
                    yield None
            self._leave(subscriber)
            page = await self._read(subscriber)

    async def _caught_up(self, subscriber: Subscriber, page: Page) -> AsyncGenerator[Reset | Event, None]:
        """Give a page and all that the table holds behind it; at the end the subscriber has joined, and missed nothing.

        Who has come to the end joins, and then reads once more: what is offered meanwhile is in its queue, and what of
        that was read is told by the last position.
        """
        joined = False
        while True:
            if page.reset:
                yield Reset(page.position)
            for event in page.events:
                subscriber.check()
                if not subscriber.wanted or subscriber.wanted.takes(event):
                    yield event
                subscriber.position = event.position
            subscriber.position = page.position
            if joined and not page.more:
                return
            if page.more:
                self._leave(subscriber)
            else:
                self._join(subscriber)
            joined = not page.more
            page = await self._read(subscriber)

    async def _read(self, subscriber: Subscriber) -> Page:
        while True:
            subscriber.check()
            try:
                async with self._turns:
                    return await self._feed.page(
                        self._db, subscriber.position, viewer=subscriber.viewer, rows=PAGE_ROWS, size=QUEUE_BYTES
                    )
            except UnavailableError as error:
                logger.bind(cause=repr(error.__cause__)).warning("a subscriber waits for the database")
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - so that not all ask at once
