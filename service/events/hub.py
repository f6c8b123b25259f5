"""The hub: it hands new events to this process's subscribers, and reads the table for the slow ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from loguru import logger

from service.core import metrics
from service.core.errors import UnavailableError
from service.db.pool import Executor
from service.events.event import Event
from service.events.log import EventLog, Page
from service.events.position import Position
from service.events.subscriber import MAX_QUEUED_BYTES, Subscriber

PAGE_ROWS = 200
MAX_READERS = 4  # of the pool's connections at once, so that requests find a free one
RETRY_SECONDS = 1.0
CHECK_SECONDS = 0.25  # by which an expired subscription may last too long


@dataclass(frozen=True)
class Reset:
    """The message that the subscriber has missed an unknown number of events, and continues at this position."""

    position: Position


@dataclass(frozen=True)
class Ready:
    """The message that the subscriber's position is valid, and that the next events continue from it."""

    position: Position


Item: TypeAlias = "Ready | Reset | Event | None"
"""What a subscriber is sent; None is a keep-alive."""


class Hub:
    """All subscribers of this process.

    A live subscriber has read the table to its end and receives events as they are dispatched. The others still read.
    """

    def __init__(self, db: Executor, event_log: EventLog) -> None:
        self._db = db
        self._event_log = event_log
        self._readers = asyncio.Semaphore(MAX_READERS)
        self.subscribers: set[Subscriber] = set()
        self._position: Position | None = None
        self._live_administrators: set[Subscriber] = set()
        self._live_owners: dict[int, set[Subscriber]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def position(self) -> Position | None:
        """The position up to which events were dispatched; None without live subscribers."""
        return self._position

    def advance(self, position: Position) -> None:
        """Note that all events up to this position were dispatched."""
        self._position = position if self._has_live_subscribers() else None

    async def dispatch(self, events: Iterable[Event]) -> None:
        """Offer events to the live subscribers that may see them; other tasks run between two events."""
        for event in events:
            await asyncio.sleep(0)
            for subscriber in self._live_administrators:
                subscriber.offer(event)
            for owner in event.owners:
                for subscriber in self._live_owners.get(owner, ()):
                    subscriber.offer(event)

    def reset(self) -> None:
        """Send every subscriber a reset, because the database's history is not the one that their positions are of."""
        for subscriber in self.subscribers:
            subscriber.position = replace(subscriber.position, epoch="")
            subscriber.overflow()

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[AsyncGenerator[Item, None]]:
        """Subscribe for the length of a block, and yield the stream of items to send.

        The next item is asked for only after the one before was sent. The stream raises SubscriptionEndedError.
        """
        self.subscribers.add(subscriber)
        if self._timer is None:
            self._check_times()
        try:
            with metrics.SUBSCRIBERS.track_inprogress():
                yield self._stream(subscriber)
        finally:
            self.subscribers.discard(subscriber)
            self._leave(subscriber)

    def _check_times(self) -> None:
        """Stop subscribers from waiting past their time: one timer in place of one each, which took KiB and CPU."""
        self._timer = None
        if self.subscribers:
            now, monotonic_now = time.time(), time.monotonic()
            for subscriber in self.subscribers:
                subscriber.check_time(now, monotonic_now)
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check_times)

    def _join(self, subscriber: Subscriber) -> None:
        subscriber.start_queue()
        if subscriber.viewer.is_admin:
            self._live_administrators.add(subscriber)
        else:
            self._live_owners.setdefault(subscriber.viewer.id, set()).add(subscriber)
        self._position = self._position or subscriber.position

    def _leave(self, subscriber: Subscriber) -> None:
        self._live_administrators.discard(subscriber)
        others = self._live_owners.get(subscriber.viewer.id, set())
        others.discard(subscriber)
        if not others:
            self._live_owners.pop(subscriber.viewer.id, None)
        if not self._has_live_subscribers():
            self._position = None

    def _has_live_subscribers(self) -> bool:
        return bool(self._live_administrators or self._live_owners)

    async def _stream(self, subscriber: Subscriber) -> AsyncGenerator[Item, None]:
        page = await self._read(subscriber)
        if not page.reset:
            yield Ready(subscriber.position)
        while True:
            async for item in self._catch_up(subscriber, page):
                yield item
            subscriber.go_live()
            while not subscriber.overflowed:
                subscriber.raise_if_ended()
                if event := subscriber.pop():
                    if subscriber.is_ahead_of(event):
                        event = self._event_log.event_after(event, subscriber.seen)
                    yield event
                    subscriber.position = event.position
                elif not await subscriber.wait():
                    yield None
            self._leave(subscriber)
            page = await self._read(subscriber)

    async def _catch_up(self, subscriber: Subscriber, page: Page) -> AsyncGenerator[Reset | Event, None]:
        """Yield the events of a page and of all later ones, and join the subscriber at the end of the table.

        After it joins, the subscriber reads once more. An event that is dispatched meanwhile is in its queue, and the
        final position shows whether that read returned the event too. So no event is missed and none is sent twice.
        """
        joined = False
        while True:
            if page.reset:
                yield Reset(page.position)
            for event in page.events:
                subscriber.raise_if_ended()
                if not subscriber.event_filter or subscriber.event_filter.matches(event):
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
            subscriber.raise_if_ended()
            try:
                async with self._readers:
                    return await self._event_log.page(
                        self._db,
                        subscriber.position,
                        viewer=subscriber.viewer,
                        max_rows=PAGE_ROWS,
                        max_bytes=MAX_QUEUED_BYTES,
                    )
            except UnavailableError as error:
                logger.bind(cause=repr(error.__cause__)).warning("subscriber read failed")
                pause = RETRY_SECONDS * random.uniform(0.5, 1)  # noqa: S311 - subscribers must not retry all at once
                await asyncio.sleep(pause)
