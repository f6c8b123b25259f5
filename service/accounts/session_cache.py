"""The cache of active log-in sessions and API keys, by which requests are authenticated."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.accounts.api_keys import KEY_PREFIX, KeyUseWriter
from service.accounts.tokens import Tokens, hash_secret
from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MAX_CACHED = 50_000


class _ViewerCache:
    """An LRU cache of viewers with an index by account: `forget` visits only the entries of one account."""

    def __init__(self) -> None:
        self._viewers: OrderedDict[Any, Viewer] = OrderedDict()
        self._names: dict[int, set[Any]] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    def __contains__(self, name: Any) -> bool:
        return name in self._viewers

    def get(self, name: Any) -> Viewer | None:
        viewer = self._viewers.get(name)
        if viewer is not None:
            self._viewers.move_to_end(name)
        return viewer

    def put(self, name: Any, viewer: Viewer) -> None:
        self.remove(name)
        if len(self._viewers) == MAX_CACHED:
            self.remove(next(iter(self._viewers)))
        self._viewers[name] = viewer
        self._names.setdefault(viewer.id, set()).add(name)

    def remove(self, name: Any) -> None:
        viewer = self._viewers.pop(name, None)
        if viewer is not None:
            names = self._names[viewer.id]
            names.discard(name)
            if not names:
                del self._names[viewer.id]

    def forget(self, user_id: int) -> None:
        for name in list(self._names.get(user_id, ())):
            self.remove(name)


class SessionCache:
    """The active sessions and API keys, each read from the database once and kept until a change of its account.

    The entries are used only while the process's listener receives such changes.
    """

    def __init__(self, db: Executor, tokens: Tokens, *, is_current: Callable[[], bool]) -> None:
        self.is_current = is_current
        self._db = db
        self._tokens = tokens
        self._sessions, self._keys = _ViewerCache(), _ViewerCache()
        self._forget_count = 0
        self._key_uses = KeyUseWriter(db)

    async def authenticate(self, credential: str) -> Viewer:
        """Return the viewer of an access token or API key. Raises: UnauthorizedError, UnavailableError."""
        if credential.startswith(KEY_PREFIX):
            return await self._authenticate_key(hash_secret(credential))
        viewer = self._tokens.verify(credential)
        current = self._sessions.get(viewer.session_id) if self.is_current() else None
        if current is not None:  # of most requests
            return _confirmed(viewer, current)
        return await self.revalidate(viewer)

    def is_uncached_key(self, credential: str) -> bool:
        """Return whether only the database can verify a credential: an API key without an entry.

        An access token is never one: the cache verifies its signature first, so a forged token causes no query.
        """
        return credential.startswith(KEY_PREFIX) and not (self.is_current() and hash_secret(credential) in self._keys)

    async def revalidate(self, viewer: Viewer) -> Viewer:
        """Return the viewer with the present role of its account.

        Raises: UnauthorizedError if its session or API key has ended.
        """
        if viewer.session_id is None:
            if await self.find_ended([viewer]):
                raise UnauthorizedError("The key is no longer valid.")
            return viewer
        current = self._sessions.get(viewer.session_id) if self.is_current() else None
        if current is None:
            current = await self._fetch_session(viewer.session_id)
        return _confirmed(viewer, current)

    async def _fetch_session(self, session_id: int) -> Viewer:
        forget_count = self._forget_count
        rows = await q.accounts.active_credentials(self._db, session_ids=[session_id], key_ids=[])
        if not rows:
            raise UnauthorizedError("The session has ended.")
        row = rows[0]
        viewer = Viewer(row["user_id"], row["role"] == "admin", session_id=session_id)
        if forget_count == self._forget_count:  # else the row may be older than the change that was announced
            self._sessions.put(session_id, viewer)
        return viewer

    async def _authenticate_key(self, key_hash: bytes) -> Viewer:
        viewer = self._keys.get(key_hash) if self.is_current() else None
        if viewer is None:
            viewer = await self._fetch_key(key_hash)
        if viewer.expires_at <= time.time():
            raise UnauthorizedError("The key has expired.")
        if viewer.key_id is not None:
            self._key_uses.note(viewer.key_id)
        return viewer

    async def _fetch_key(self, key_hash: bytes) -> Viewer:
        forget_count = self._forget_count
        row = await q.accounts.get_key(self._db, hash=key_hash)
        if row is None:
            raise UnauthorizedError("The key is not valid.")
        viewer = Viewer(
            row["user_id"],
            row["role"] == "admin",
            read_only=row["read_only"],
            key_id=row["id"],
            expires_at=_timestamp(row["expires_at"]),
        )
        if forget_count == self._forget_count:
            self._keys.put(key_hash, viewer)
        return viewer

    async def find_ended(self, viewers: Sequence[Viewer], *, db: Executor | None = None) -> list[Viewer]:
        """Read from the database which viewers' session or API key has ended, or whose account's role has changed."""
        rows = await q.accounts.active_credentials(
            db or self._db,
            session_ids=[one.session_id for one in viewers if one.session_id is not None],
            key_ids=[one.key_id for one in viewers if one.key_id is not None],
        )
        roles: dict[tuple[str, int | None], bool] = {(row["kind"], row["id"]): row["role"] == "admin" for row in rows}
        return [one for one in viewers if roles.get(_name(one)) is not one.is_admin]

    def forget(self, user_id: int | None = None) -> None:
        """Remove the entries of an account, or all entries."""
        self._forget_count += 1
        if user_id is None:
            self._sessions, self._keys = _ViewerCache(), _ViewerCache()
            return
        self._sessions.forget(user_id)
        self._keys.forget(user_id)

    def forget_session(self, session_id: int) -> None:
        """Remove the entry of a session."""
        self._forget_count += 1
        self._sessions.remove(session_id)


def _confirmed(viewer: Viewer, current: Viewer) -> Viewer:
    """Return the viewer of a token with the present role of its account. Raises: UnauthorizedError."""
    if current.id != viewer.id:
        raise UnauthorizedError("The token is not valid.")
    if current.is_admin == viewer.is_admin:
        return viewer
    return replace(current, expires_at=viewer.expires_at)


def _name(viewer: Viewer) -> tuple[str, int | None]:
    return ("key", viewer.key_id) if viewer.session_id is None else ("session", viewer.session_id)


def _timestamp(moment: datetime | None) -> float:
    return math.inf if moment is None else moment.timestamp()
