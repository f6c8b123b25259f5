"""Which sessions and API keys are good: asked of the database once, remembered, and forgotten when it says so.

What is remembered is believed only while the listener hears of changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from datetime import datetime
from typing import Any

from cachetools import LRUCache, TTLCache
from loguru import logger

from service.accounts.tokens import Tokens
from service.core.errors import ServiceError, UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

KEY_PREFIX = "tm_"
MAX_CACHED = 50_000
NOTED_SECONDS = 3605  # the statement's hour, and time for it to run: a use just within the hour is not written


class _Remembered(LRUCache[Any, Viewer]):
    """The viewers remembered last, to be found by account as well: forgetting one account looks at no other."""

    def __init__(self) -> None:
        super().__init__(MAX_CACHED)
        self._of: dict[int, set[Any]] = {}

    def __setitem__(self, name: Any, viewer: Viewer, *args: Any) -> None:
        super().__setitem__(name, viewer, *args)
        self._of.setdefault(viewer.id, set()).add(name)

    def __delitem__(self, name: Any, *args: Any) -> None:
        names = self._of[self[name].id]
        names.discard(name)
        if not names:
            del self._of[self[name].id]
        super().__delitem__(name, *args)

    def forget(self, user_id: int) -> None:
        for name in list(self._of.get(user_id, ())):
            del self[name]


class Sessions:
    """What stands behind a token or an API key now."""

    def __init__(self, db: Executor, tokens: Tokens, *, is_current: Callable[[], bool]) -> None:
        self.is_current = is_current
        self._db = db
        self._tokens = tokens
        self._sessions, self._keys = _Remembered(), _Remembered()
        self._forgotten = 0
        self._noted: TTLCache[int, bool] = TTLCache(MAX_CACHED, NOTED_SECONDS)
        self._uses: set[int] = set()
        self._writer: asyncio.Task[None] | None = None

    async def viewer(self, credential: str) -> Viewer:
        """Give whom a token or a key speaks for; UnauthorizedError, UnavailableError."""
        if credential.startswith(KEY_PREFIX):
            return await self._by_key(hashed(credential))
        return await self.present(self._tokens.verify(credential))

    def knows(self, credential: str) -> bool:
        """Whether no database is needed to say what a key is worth; a token's signature keeps strangers from asking."""
        return not credential.startswith(KEY_PREFIX) or (self.is_current() and hashed(credential) in self._keys)

    async def present(self, viewer: Viewer) -> Viewer:
        """Give the viewer as the account is now; UnauthorizedError where its session or key is over."""
        if viewer.session_id is None:
            if await self.over([viewer]):
                raise UnauthorizedError("The key is not valid any more.")
            return viewer
        known = self._sessions.get(viewer.session_id) if self.is_current() else None
        if known is None:
            known = await self._look_up(viewer.session_id)
        if known.id != viewer.id:
            raise UnauthorizedError("The token is not valid.")
        return replace(known, expires_at=viewer.expires_at)

    async def _look_up(self, session_id: int) -> Viewer:
        forgotten = self._forgotten
        rows = await q.accounts.active_credentials(self._db, session_ids=[session_id], key_ids=[])
        if not rows:
            raise UnauthorizedError("The session is over.")
        row = rows[0]
        found = Viewer(row["user_id"], row["role"] == "admin", session_id=session_id)
        if forgotten == self._forgotten:  # else it may be older than what has changed
            self._sessions[session_id] = found
        return found

    async def _by_key(self, key_hash: bytes) -> Viewer:
        known = self._keys.get(key_hash) if self.is_current() else None
        if known is None:
            forgotten = self._forgotten
            row = await q.accounts.get_key(self._db, hash=key_hash)
            if row is None:
                raise UnauthorizedError("The key is not valid.")
            known = Viewer(
                row["user_id"],
                row["role"] == "admin",
                read_only=row["read_only"],
                key_id=row["id"],
                expires_at=_timestamp(row["expires_at"]),
            )
            if forgotten == self._forgotten:
                self._keys[key_hash] = known
        if known.expires_at <= time.time():
            raise UnauthorizedError("The key has expired.")
        if known.key_id is not None and known.key_id not in self._noted:
            self._note_use(known.key_id)
        return known

    def _note_use(self, key_id: int) -> None:
        """Write the use of a key beside the request, which does not wait for it; one write at a time."""
        self._noted[key_id] = True
        self._uses.add(key_id)
        if self._writer is None or self._writer.done():  # in no request's context, whose time would count it
            self._writer = asyncio.create_task(self._write_uses(), context=Context())

    async def _write_uses(self) -> None:
        while self._uses:
            key_id = self._uses.pop()
            try:
                await q.accounts.note_key_use(self._db, key_id=key_id)
            except ServiceError as error:
                logger.bind(key_id=key_id, cause=repr(error.__cause__)).debug("key use lost")

    async def over(self, viewers: Sequence[Viewer], *, db: Executor | None = None) -> list[Viewer]:
        """Give those whose session or key is over, or whose account has another role now; asks the database."""
        rows = await q.accounts.active_credentials(
            db or self._db,
            session_ids=[one.session_id for one in viewers if one.session_id is not None],
            key_ids=[one.key_id for one in viewers if one.key_id is not None],
        )
        roles: dict[tuple[str, int | None], bool] = {(row["kind"], row["id"]): row["role"] == "admin" for row in rows}
        return [one for one in viewers if roles.get(_name(one)) is not one.is_admin]

    def forget(self, user_id: int | None = None) -> None:
        """Forget what is remembered of an account, or of all."""
        self._forgotten += 1
        if user_id is None:
            self._sessions, self._keys = _Remembered(), _Remembered()
            return
        self._sessions.forget(user_id)
        self._keys.forget(user_id)

    def forget_session(self, session_id: int) -> None:
        """Forget what is remembered of a session."""
        self._forgotten += 1
        self._sessions.pop(session_id, None)


def hashed(secret: str) -> bytes:
    """Give what is kept of a key or a ticket: they are random, so that no slow hash is needed."""
    return hashlib.sha256(secret.encode()).digest()


def _name(viewer: Viewer) -> tuple[str, int | None]:
    return ("key", viewer.key_id) if viewer.session_id is None else ("session", viewer.session_id)


def _timestamp(moment: datetime | None) -> float:
    return math.inf if moment is None else moment.timestamp()
