"""The operations on API keys, and the background writer of their last use."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache
from loguru import logger

from service.accounts.schemas import NewKey
from service.accounts.tokens import SECRET_BYTES, hash_secret
from service.core.errors import ConflictError, ForbiddenError, NotFoundError, ServiceError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

KEY_PREFIX = "tm_"
MAX_KEYS = 100
MAX_NOTED_KEYS = 50_000
NOTED_SECONDS = 3605  # the statement's hour and 5 s for it to run: it ignores a use within the hour


@dataclass(frozen=True)
class ApiKeys:
    """The operations on a user's own API keys.

    forget_user: drops a user's sessions and keys from the cache of this process.
    """

    forget_user: Callable[[int], None]

    async def create(self, db: Executor, viewer: Viewer, new: NewKey) -> dict[str, Any]:
        """Create an API key and return its row with the key, which is stored only as a hash.

        Raises: ForbiddenError if the request came with an API key, which could otherwise outlive its own revocation;
        ConflictError if the account has MAX_KEYS keys.
        """
        if viewer.session_id is None:
            raise ForbiddenError("Only a log-in session creates API keys; this request came with an API key.")
        key = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        row = await q.accounts.create_key(
            db, user_id=viewer.id, hash=hash_secret(key), **new.model_dump(), max_keys=MAX_KEYS
        )
        if row is None:
            raise ConflictError(f"An account has at most {MAX_KEYS} keys.")
        logger.bind(user_id=viewer.id, key_id=row["id"]).info("API key created")
        return {**dict(row), "key": key}

    async def list(self, db: Executor, viewer: Viewer) -> dict[str, Any]:
        """Return the viewer's API keys as `{items}`."""
        return {"items": await q.accounts.list_keys(db, user_id=viewer.id, row_limit=MAX_KEYS)}

    async def revoke(self, db: Executor, viewer: Viewer, key_id: int) -> None:
        """Revoke one of the viewer's API keys. Raises: NotFoundError."""
        revoked = await q.accounts.revoke_key(db, key_id=key_id, user_id=viewer.id)
        self.forget_user(viewer.id)
        if not revoked:
            raise NotFoundError("There is no such key.")
        logger.bind(user_id=viewer.id, key_id=key_id).info("API key revoked")


class KeyUseWriter:
    """A writer of `last_used_at` that runs beside the requests: one write at a time, at most one per key and hour."""

    def __init__(self, db: Executor) -> None:
        self._db = db
        self._noted: TTLCache[int, bool] = TTLCache(MAX_NOTED_KEYS, NOTED_SECONDS)
        self._pending: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    def note(self, key_id: int) -> None:
        """Have the use of a key written, unless that was done within the hour."""
        if key_id in self._noted:
            return
        self._noted[key_id] = True
        self._pending.add(key_id)
        if self._task is None or self._task.done():  # an empty context, or its time would count for the request
            self._task = asyncio.create_task(self._write(), context=Context())

    async def _write(self) -> None:
        while self._pending:
            key_id = self._pending.pop()
            try:
                await q.accounts.note_key_use(self._db, key_id=key_id)
            except ServiceError as error:
                logger.bind(key_id=key_id, cause=repr(error.__cause__)).debug("API key use lost")
