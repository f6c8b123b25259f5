"""The process's LISTEN connection: polls for new events, notifies the other processes, and forgets ended sessions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
from loguru import logger

from service.accounts.session_cache import SessionCache
from service.core import metrics
from service.core.close_codes import SESSION_ENDED
from service.core.database_url import for_asyncpg
from service.core.errors import ServiceError, UnavailableError
from service.db import pool
from service.db.errors import DRIVER_ERRORS, translate
from service.db.pool import CONNECT_SECONDS, Connection
from service.db.queries import q
from service.events.hub import Hub
from service.events.log import EventLog
from service.events.signals import Heartbeat, PollSignal
from service.events.subscriber import Subscriber

EVENTS_CHANNEL, ACCOUNTS_CHANNEL = "task_events", "accounts"
NOTIFY = f"notify {EVENTS_CHANNEL}"
POLL_SECONDS = 0.5
MIN_ROUND_SECONDS = 0.01
COMMAND_TIMEOUT_SECONDS = 5.0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 5.0
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_REPAIRED_ROWS = 10_000  # takes 0.2 s
REPAIR_LOCK_TIMEOUT = "100ms"  # while the repair waits for a lock, the listener does not poll


class Listener:
    """The task that reads new events and dispatches them to this process's subscribers.

    It polls at least every POLL_SECONDS; while there are subscribers, also after every NOTIFY and after every commit of
    this process. A NOTIFY carries no data: a lost one delays an event by POLL_SECONDS and loses none.
    """

    def __init__(
        self,
        url: str,
        *,
        event_log: EventLog,
        hub: Hub,
        sessions: SessionCache,
        poll_signal: PollSignal,
        heartbeat: Heartbeat,
    ) -> None:
        self._url = url
        self._event_log = event_log
        self._hub = hub
        self._sessions = sessions
        self._poll_signal = poll_signal
        self._heartbeat = heartbeat
        self._changed_accounts: set[int] = set()
        self._polled_at = float("-inf")
        self._pid = 0
        self._repair_obstacle = ""

    @property
    def is_polling(self) -> bool:
        """Whether the last poll ended recently enough for the connection to be up."""
        return time.monotonic() - self._polled_at < POLL_SECONDS + COMMAND_TIMEOUT_SECONDS

    async def run(self) -> None:
        """Listen until this task is cancelled, and reconnect after every failure."""
        pause, logged_reason = FIRST_PAUSE_SECONDS, ""
        while True:
            started_at = time.monotonic()
            try:
                await self._listen()
            except (*DRIVER_ERRORS, ServiceError) as error:
                reason = getattr(translate(error), "detail", repr(error))
                if reason != logged_reason:
                    logger.bind(reason=reason, cause=repr(error)).warning("listener disconnected")
                    logged_reason = reason
            except Exception:  # a defect in one round must not stop all later ones
                logger.exception("listener failed")
            if self._polled_at > started_at:
                pause, logged_reason = FIRST_PAUSE_SECONDS, ""
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - replicas must not reconnect all at once
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            for_asyncpg(self._url),
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
            server_settings=pool.session_settings("listener", milliseconds=int(COMMAND_TIMEOUT_SECONDS * 1000)),
        )
        try:
            self._pid = connection.get_server_pid()
            await pool.register_codecs(connection)
            await connection.add_listener(EVENTS_CHANNEL, self._on_event)
            await connection.add_listener(ACCOUNTS_CHANNEL, self._on_account)
            self._sessions.forget()
            await self._end_revoked(connection, list(self._hub.subscribers))
            logger.info("listener connected")
            self._poll_signal.set()
            while True:
                await self._round(connection)
        finally:
            self._heartbeat.drop()
            connection.terminate()

    async def _round(self, connection: Connection) -> None:
        polls_at = self._polled_at + POLL_SECONDS
        await self._poll_signal.wait(max(0.0, polls_at - time.monotonic()))
        started_at = time.monotonic()
        if self._changed_accounts:
            changed, self._changed_accounts = self._changed_accounts, set()
            await self._end_revoked(connection, [one for one in self._hub.subscribers if one.viewer.id in changed])
        # Without subscribers nobody waits for events: a poll for each commit would take 3 % of the CPU time of writes.
        polls = self._hub.position is not None or started_at + MIN_ROUND_SECONDS >= polls_at
        if polls:
            await self._poll(connection)
            self._polled_at = time.monotonic()
            metrics.LISTENER_POLLED.set_to_current_time()
        notifies = self._poll_signal.pop_commit()
        if notifies:
            await connection.execute(NOTIFY)
        if polls or notifies:  # what was announced before has arrived with the reply
            self._heartbeat.renew(started_at)
        await asyncio.sleep(max(0.0, started_at + MIN_ROUND_SECONDS - time.monotonic()))

    async def _poll(self, connection: Connection) -> None:
        await self._repair_future_xids(connection)
        start = self._hub.position
        if start is None:
            return
        page = await self._event_log.page(connection, start, max_bytes=MAX_PAGE_BYTES)
        if page.reset:
            logger.warning("event history replaced")
            self._poll_signal.set()
            self._hub.reset()
        await self._hub.dispatch(page.events)
        self._hub.advance(page.position)
        if page.more:  # in the next round, which first ends the subscriptions whose session has ended
            self._poll_signal.set()

    async def _repair_future_xids(self, connection: Connection) -> None:
        if not await q.events.has_future_xids(connection):
            self._repair_obstacle = ""
            return
        try:
            async with connection.transaction():
                await q.dba.set_for_transaction(connection, name="lock_timeout", value=REPAIR_LOCK_TIMEOUT)
                repaired = await q.events.repair_future_xids(connection, row_limit=MAX_REPAIRED_ROWS)
        except UnavailableError as error:  # read-only or locked: unrepaired events are not taken for new ones
            cause = repr(error.__cause__)
            if cause != self._repair_obstacle:
                logger.bind(cause=cause).warning("event repair postponed")
            self._repair_obstacle = cause
            return
        if repaired:
            logger.bind(events=repaired).warning("events repaired after a restore")
            self._poll_signal.set()

    async def _end_revoked(self, connection: Connection, subscribers: Sequence[Subscriber]) -> None:
        """End the subscriptions whose session or key has ended, or whose account has another role now."""
        revoked = await self._sessions.find_ended([one.viewer for one in subscribers], db=connection)
        revoked_ids = {id(viewer) for viewer in revoked}
        for subscriber in subscribers:
            if id(subscriber.viewer) in revoked_ids:
                subscriber.end(SESSION_ENDED)

    def _on_event(self, _connection: Any, pid: int, _channel: str, _payload: Any) -> None:
        if pid != self._pid:  # its own NOTIFY is for the other processes
            self._poll_signal.set()

    def _on_account(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        if payload.isdecimal():
            self._sessions.forget(int(payload))
            self._changed_accounts.add(int(payload))
        else:  # sent by hand, not by the trigger: it may concern any account
            self._sessions.forget()
            self._changed_accounts |= {one.viewer.id for one in self._hub.subscribers}
        self._poll_signal.set()
