"""This process's ear: one connection that listens, looks for new events, and wakes the other processes."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import asyncpg
from loguru import logger

from service import db
from service.db import CONNECT_SECONDS, Connection
from service.db_errors import DRIVER_ERRORS, translate
from service.errors import ServiceError
from service.events import Feed, Position
from service.hub import GONE, Hub
from service.queries import q

EVENTS, ACCOUNTS = "task_events", "accounts"
NOTIFY = f"notify {EVENTS}"
LOOK_SECONDS = 1.0
PACE_SECONDS = 0.01
ANSWER_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
PAGE_BYTES = 4 * 1024 * 1024


class Listener:
    """Looks whenever a NOTIFY or this process says that there may be something new, and once a second in any case.

    A NOTIFY is a hint and carries nothing: one that is lost costs a second, and never an event.
    """

    def __init__(self, url: str, *, feed: Feed, hub: Hub) -> None:
        self._url = url
        self._feed = feed
        self._hub = hub
        self._position: Position | None = None
        self._wake = asyncio.Event()
        self._changed = False
        self._suspects: set[int] = set()
        self._looked_at = float("-inf")
        self._pid = 0

    @property
    def alive(self) -> bool:
        """Whether it has looked lately."""
        return time.monotonic() - self._looked_at < LOOK_SECONDS + ANSWER_SECONDS

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
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=db.session_settings("listener", milliseconds=int(ANSWER_SECONDS * 1000)),
        )
        try:
            self._pid = connection.get_server_pid()
            await db.prepare(connection)
            await connection.add_listener(EVENTS, self._on_event)
            await connection.add_listener(ACCOUNTS, self._on_account)
            if settled := await q.events.settle(connection):
                logger.bind(events=settled).warning("the database was restored: old events are settled")
            await self._recheck(connection, {one.viewer.id for one in self._hub.subscribers})
            logger.info("the listener listens")
            while True:
                await self._round(connection)
        finally:
            connection.terminate()

    async def _round(self, connection: Connection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._wake.wait()
        self._wake.clear()
        begun = time.monotonic()
        if self._suspects:
            suspects, self._suspects = self._suspects, set()
            await self._recheck(connection, suspects)
        await self._look(connection)
        if self._changed:
            self._changed = False
            await connection.execute(NOTIFY)
        self._looked_at = time.monotonic()
        await asyncio.sleep(max(0.0, begun + PACE_SECONDS - self._looked_at))

    async def _look(self, connection: Connection) -> None:
        if self._position is None or not self._hub.followed:
            here = await self._feed.here(connection)
            if self._position is None:  # who has come before the first look may have missed what it does not see as new
                self._hub.reread()
            if self._position is None or not self._hub.followed:  # nobody came meanwhile
                self._position = here
                return
        more = True
        while more:
            page = await self._feed.page(connection, self._position, size=PAGE_BYTES)
            if page.reset:
                logger.warning("the database's history is another one: every subscriber starts anew")
                self._hub.restart()
            await self._hub.dispatch(page.events)
            self._position, more = page.position, page.more

    async def _recheck(self, connection: Connection, accounts: set[int]) -> None:
        """End the subscriptions of accounts that are gone or have another role now."""
        roles = {row["id"]: row["role"] for row in await q.accounts.roles(connection, user_ids=list(accounts))}
        for subscriber in list(self._hub.subscribers):
            viewer = subscriber.viewer
            if viewer.id in accounts and roles.get(viewer.id) != viewer.role:
                subscriber.end(GONE)

    def _on_event(self, _connection: Any, pid: int, _channel: str, _payload: Any) -> None:
        if pid != self._pid:  # its own NOTIFY is for the others
            self._wake.set()

    def _on_account(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        self._suspects.add(int(payload))
        self._wake.set()
