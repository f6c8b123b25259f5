"""Hands events to this process's subscribers: directly where possible, else through a bounded queue."""

from __future__ import annotations

import asyncio
import random
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
from service.events.subscriber import QUEUE_BYTES, Subscriber

PAGE_ROWS = 200
READERS = 4  # at once, of the pool's connections, so that requests find some free
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Reset:
    """What lies between the subscriber's position and this one is not known any more."""

    position: Position


@dataclass(frozen=True)
class Ready:
    """The subscriber's position is good: what follows goes on from it."""

    position: Position


Item: TypeAlias = "Ready | Reset | Event | None"


class Hub:
    """All subscribers of this process."""

    def __init__(self, db: Executor, event_log: EventLog) -> None:
        self._db = db
        self._event_log = event_log
        self._readers = asyncio.Semaphore(READERS)
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
                        event = self._event_log.event_after(event, subscriber.seen)
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
                async with self._readers:
                    return await self._event_log.page(
                        self._db, subscriber.position, viewer=subscriber.viewer, rows=PAGE_ROWS, size=QUEUE_BYTES
                    )
            except UnavailableError as error:
                logger.bind(cause=repr(error.__cause__)).warning("a subscriber waits for the database")
                await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - so that not all ask at once
