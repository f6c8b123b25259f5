"""This process's ear: one connection that listens, looks for new events, and wakes the other processes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg
from loguru import logger

from service.accounts.session_cache import SessionCache
from service.core import metrics
from service.core.errors import ServiceError, UnavailableError
from service.db import pool
from service.db.errors import DRIVER_ERRORS, translate
from service.db.pool import CONNECT_SECONDS, Connection
from service.db.queries import q
from service.events.hub import Hub
from service.events.log import EventLog
from service.events.position import Position
from service.events.subscriber import GONE, Subscriber

EVENTS, ACCOUNTS = "task_events", "accounts"
NOTIFY = f"notify {EVENTS}"
POLL_SECONDS = 0.5
CURRENT_SECONDS = 1.0
PACE_SECONDS = 0.01
ANSWER_SECONDS = 5.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 5.0
PAGE_BYTES = 4 * 1024 * 1024
SETTLED_ROWS = 10_000  # in a fifth of a second
SETTLING_WAIT = "100ms"  # for a lock: meanwhile nothing is heard


class Listener:
    """Looks whenever a NOTIFY or this process says that there may be something new, and twice a second in any case.

    A NOTIFY is a hint and carries nothing: one that is lost costs half a second, and never an event.
    """

    def __init__(self, url: str, *, event_log: EventLog, hub: Hub, sessions: SessionCache) -> None:
        self._url = url
        self._event_log = event_log
        self._hub = hub
        self._sessions = sessions
        sessions.believed = lambda: self.current
        self._position: Position | None = None
        self._wake = asyncio.Event()
        self._changed = False
        self._suspects: set[int] = set()
        self._looked_at = float("-inf")
        self._heard_at = float("-inf")
        self._pid = 0
        self._unsettled = ""

    @property
    def alive(self) -> bool:
        """Whether it has looked lately."""
        return time.monotonic() - self._looked_at < POLL_SECONDS + ANSWER_SECONDS

    @property
    def current(self) -> bool:
        """Whether it would have heard of what happened more than CURRENT_SECONDS ago."""
        return time.monotonic() - self._heard_at < CURRENT_SECONDS

    def changed(self) -> None:
        """Say that this process has committed a change."""
        self._changed = True
        self._wake.set()

    async def run(self) -> None:
        """Listen until cancelled; a connection that is lost is made anew."""
        pause, said = FIRST_PAUSE_SECONDS, ""
        while True:
            begun = time.monotonic()
            try:
                await self._listen()
            except (*DRIVER_ERRORS, ServiceError) as error:
                reason = getattr(translate(error), "detail", repr(error))
                if reason != said:
                    logger.bind(cause=repr(error)).warning("the listener has lost the database: {}", reason)
                    said = reason
            except Exception:  # a defect of one look does not end all others
                logger.exception("the listener failed")
            if self._looked_at > begun:
                pause, said = FIRST_PAUSE_SECONDS, ""
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - so that replicas do not march in step
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=pool.session_settings("listener", milliseconds=int(ANSWER_SECONDS * 1000)),
        )
        try:
            self._pid = connection.get_server_pid()
            await pool.register_codecs(connection)
            await connection.add_listener(EVENTS, self._on_event)
            await connection.add_listener(ACCOUNTS, self._on_account)
            self._sessions.forget()
            await self._recheck(connection, list(self._hub.subscribers))
            logger.info("the listener listens")
            self._wake.set()
            while True:
                await self._round(connection)
        finally:
            self._heard_at = float("-inf")
            connection.terminate()

    async def _round(self, connection: Connection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        self._wake.clear()
        begun = time.monotonic()
        if self._suspects:
            suspects, self._suspects = self._suspects, set()
            await self._recheck(connection, [one for one in self._hub.subscribers if one.viewer.id in suspects])
        await self._look(connection)
        if self._changed:
            self._changed = False
            await connection.execute(NOTIFY)
        self._looked_at, self._heard_at = time.monotonic(), begun
        metrics.LISTENER_POLLED.set_to_current_time()
        await asyncio.sleep(max(0.0, begun + PACE_SECONDS - self._looked_at))

    async def _look(self, connection: Connection) -> None:
        await self._settle(connection)
        if self._position is None or not self._hub.followed:
            here = await self._event_log.here(connection)
            if self._position is None:
                self._hub.reread()  # who came before this first look may not have read so far
            if self._position is None or not self._hub.followed:  # nobody came meanwhile
                self._position = here
                return
        page = await self._event_log.page(connection, self._position, size=PAGE_BYTES)
        if page.reset:
            logger.warning("the database's history is another one: every subscriber starts anew")
            self._wake.set()
            self._hub.restart()
        await self._hub.dispatch(page.events)
        self._position = page.position
        if page.more:  # in a round of its own, so that whose time is over does not hear the rest of a long batch
            self._wake.set()

    async def _settle(self, connection: Connection) -> None:
        if not await q.events.has_future_xids(connection):
            self._unsettled = ""
            return
        try:
            async with connection.transaction():
                await q.dba.set_for_transaction(connection, name="lock_timeout", value=SETTLING_WAIT)
                settled = await q.events.repair_future_xids(connection, row_limit=SETTLED_ROWS)
        except UnavailableError as error:  # read-only or locked: until then they are not taken for new
            cause = repr(error.__cause__)
            if cause != self._unsettled:
                logger.bind(cause=cause).warning("the database was restored: nothing can be settled yet")
            self._unsettled = cause
            return
        if settled:
            logger.bind(events=settled).warning("the database was restored: old events are settled")
            self._wake.set()

    async def _recheck(self, connection: Connection, subscribers: Sequence[Subscriber]) -> None:
        """End the subscriptions whose session or key is over, or whose account has another role now."""
        over = await self._sessions.find_ended([one.viewer for one in subscribers], db=connection)
        gone = {id(viewer) for viewer in over}
        for subscriber in subscribers:
            if id(subscriber.viewer) in gone:
                subscriber.end(GONE)

    def _on_event(self, _connection: Any, pid: int, _channel: str, _payload: Any) -> None:
        if pid != self._pid:  # its own NOTIFY is for the others
            self._wake.set()

    def _on_account(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload.isdecimal():
            self._sessions.forget(int(payload))
            self._suspects.add(int(payload))
        else:  # somebody's own word: it may mean anyone
            self._sessions.forget()
            self._suspects |= {one.viewer.id for one in self._hub.subscribers}
        self._wake.set()
