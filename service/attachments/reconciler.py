"""Keeps files and rows from drifting apart: removes what deletions and crashes leave, and reports what is missing."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from loguru import logger

from service.attachments.operations import Attachments
from service.attachments.storage.base import Found, Store, away
from service.core.errors import ServiceError
from service.db.pool import Executor
from service.db.queries import q

PAUSE_SECONDS = 60.0
CLAIM_SECONDS, CLAIM_ROWS, AT_ONCE = 600.0, 50, 5
LEASE_SECONDS = 3600.0  # from one sweep to the next, and how long one may do nothing before another begins
BATCH_ROWS = 1000
ORPHAN_AGE = timedelta(days=1)
MAX_NAMED, MAX_LOST = 20, 1000


async def run(db: Executor, attachments: Attachments) -> None:
    """Do it until cancelled; at once where something was removed here."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS * random.uniform(0.5, 1)):  # noqa: S311 - not in step with others
                await attachments.removed.wait()
        attachments.removed.clear()
        try:
            while await remove(db, attachments.store):
                pass
            await compare(db, attachments.store)
        except ServiceError as error:
            logger.bind(cause=repr(error.__cause__)).warning("attachments: cannot sweep: {}", error.detail)
        except Exception:  # a defect of one round does not end all others
            logger.exception("attachments: cannot sweep")


async def remove(db: Executor, store: Store) -> bool:
    """Remove some files of attachments that are gone; whether there may be more.

    After CLAIM_SECONDS another process may claim them, and a restored task have them back: long before, this ends.
    """
    rows = await q.attachments.claim_removed(db, seconds=CLAIM_SECONDS, row_limit=CLAIM_ROWS)
    turns = asyncio.Semaphore(AT_ONCE)

    async def remove_one(key: str) -> str:
        async with turns:
            await store.remove(key)
        return key

    try:
        async with asyncio.timeout(CLAIM_SECONDS / 2):
            ends = await asyncio.gather(*(remove_one(row["key"]) for row in rows), return_exceptions=True)
    except TimeoutError as error:
        raise away(error) from error
    if gone := [end for end in ends if isinstance(end, str)]:
        await q.attachments.forget_removed(db, keys=gone)
        logger.bind(files=len(gone)).debug("files of deleted attachments are gone")
    if failures := [end for end in ends if isinstance(end, BaseException)]:
        raise failures[0]
    return len(rows) == CLAIM_ROWS


async def compare(db: Executor, store: Store) -> None:
    """Hold the store's files against the rows, where that is due and no other process does it."""
    lease = await q.attachments.acquire_sweep_lease(db, seconds=LEASE_SECONDS, holds_lease=False)
    if lease is not None:
        await hold(db, store, lease["folder"])


async def hold(db: Executor, store: Store, folder: str) -> None:
    """Hold the files of a folder against the rows, and go on having the turn."""
    before = datetime.now(UTC) - ORPHAN_AGE
    sweep = _Sweep(db, store, before)
    async for files in store.listed(folder):
        await sweep.take(files)
        await q.attachments.acquire_sweep_lease(db, seconds=LEASE_SECONDS, holds_lease=True)
    await sweep.end()
    cleared = await store.clear(folder, before=before)
    if sweep.removed or cleared:
        logger.bind(files=sweep.removed, parts=cleared).info("attachments: files without rows are gone")
    if sweep.lost:
        logger.bind(attachments=sweep.lost[:MAX_NAMED]).error(
            "attachments: {} rows have no files in the store", len(sweep.lost)
        )


class _Sweep:
    """Files and rows, both in the order of their keys."""

    def __init__(self, db: Executor, store: Store, before: datetime) -> None:
        self._db, self._store, self._before = db, store, before
        self._after = ""
        self.removed = 0
        self.lost: list[int] = []

    async def take(self, files: list[Found]) -> None:
        """Look at some files, and at the rows as far as the last of them."""
        await self._miss({one.key for one in files}, last=files[-1].key)
        old = [one.key for one in files if one.modified_at < self._before]
        for row in await q.attachments.find_orphans(self._db, keys=old) if old else ():
            await self._store.remove(row["key"])
            self.removed += 1

    async def end(self) -> None:
        """Look at the rows behind the last file."""
        await self._miss(set(), last=None)

    async def _miss(self, present: set[str], *, last: str | None) -> None:
        more = True
        while more:
            page = await q.attachments.keys(self._db, after_key=self._after, last_key=last, row_limit=BATCH_ROWS)
            for row in page:
                self._after = row["key"]
                # Asked again: the list may be older than the file.
                if row["key"] not in present and len(self.lost) < MAX_LOST:
                    self.lost += [] if await self._store.exists(row["key"]) else [row["id"]]
            more = len(page) == BATCH_ROWS
