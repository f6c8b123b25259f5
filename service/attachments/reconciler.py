"""The reconciliation of files with rows: removes files without rows, and reports rows without files."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from loguru import logger

from service.attachments.operations import Attachments
from service.attachments.storage.base import Store, StoredFile, unavailable
from service.core.background import run_every
from service.db.pool import Executor
from service.db.queries import q

PAUSE_SECONDS = 60.0
CLAIM_SECONDS, CLAIM_ROWS, MAX_CONCURRENT_REMOVALS = 600.0, 50, 5
LEASE_SECONDS = 3600.0  # the pause between sweeps, and the time after which a stalled sweep loses its lease
BATCH_ROWS = 1000
ORPHAN_AGE = timedelta(days=1)
MAX_LOGGED_IDS, MAX_LOST = 20, 1000


async def run(db: Executor, attachments: Attachments) -> None:
    """Remove files without rows again and again until cancelled, and at once after a removal by this process."""

    async def sweep() -> None:
        while await remove(db, attachments.store):
            pass
        await compare(db, attachments.store)

    await run_every(PAUSE_SECONDS, sweep, name="attachment sweep", wake=attachments.removed)


async def remove(db: Executor, store: Store) -> bool:
    """Remove a batch of files of deleted attachments, and return whether more may be left.

    The removal stops after half of CLAIM_SECONDS. After the whole, another process may claim the files, or a restored
    task may keep them.

    Raises: UnavailableError.
    """
    rows = await q.attachments.claim_removed(db, seconds=CLAIM_SECONDS, row_limit=CLAIM_ROWS)
    semaphore = asyncio.Semaphore(MAX_CONCURRENT_REMOVALS)

    async def remove_one(key: str) -> str:
        async with semaphore:
            await store.remove(key)
        return key

    try:
        async with asyncio.timeout(CLAIM_SECONDS / 2):
            results = await asyncio.gather(*(remove_one(row["key"]) for row in rows), return_exceptions=True)
    except TimeoutError as error:
        raise unavailable(error) from error
    if removed := [result for result in results if isinstance(result, str)]:
        await q.attachments.forget_removed(db, keys=removed)
        logger.bind(files=len(removed)).debug("files of deleted attachments removed")
    if errors := [result for result in results if isinstance(result, BaseException)]:
        raise errors[0]
    return len(rows) == CLAIM_ROWS


async def compare(db: Executor, store: Store) -> None:
    """Compare the store's files with the rows, if that is due and no other process does it."""
    lease = await q.attachments.acquire_sweep_lease(db, seconds=LEASE_SECONDS, holds_lease=False)
    if lease is not None:
        await compare_folder(db, store, lease["folder"])


async def compare_folder(db: Executor, store: Store, folder: str) -> None:
    """Compare the files of a folder with the rows, and extend the lease after each batch."""
    before = datetime.now(UTC) - ORPHAN_AGE
    sweep = _Sweep(db, store, before)
    async for files in store.list_files(folder):
        await sweep.compare(files)
        await q.attachments.acquire_sweep_lease(db, seconds=LEASE_SECONDS, holds_lease=True)
    await sweep.finish()
    unfinished = await store.remove_unfinished(folder, before=before)
    if sweep.removed or unfinished:
        logger.bind(files=sweep.removed, unfinished=unfinished).info("orphan files removed")
    if sweep.lost:
        logger.bind(count=len(sweep.lost), attachments=sweep.lost[:MAX_LOGGED_IDS]).error("attachment files missing")


class _Sweep:
    """One pass over the files and the rows, both in the order of their keys.

    removed: the number of files without rows that were removed.
    lost: the ids of attachments without files.
    """

    def __init__(self, db: Executor, store: Store, before: datetime) -> None:
        self._db, self._store, self._before = db, store, before
        self._after = ""
        self.removed = 0
        self.lost: list[int] = []

    async def compare(self, files: list[StoredFile]) -> None:
        """Compare a batch of files with the rows up to the last file's key."""
        await self._find_lost({one.key for one in files}, last=files[-1].key)
        old = [one.key for one in files if one.modified_at < self._before]
        for row in await q.attachments.find_orphans(self._db, keys=old) if old else ():
            await self._store.remove(row["key"])
            self.removed += 1

    async def finish(self) -> None:
        """Check the rows after the last file's key."""
        await self._find_lost(set(), last=None)

    async def _find_lost(self, present: set[str], *, last: str | None) -> None:
        more = True
        while more:
            page = await q.attachments.keys(self._db, after_key=self._after, last_key=last, row_limit=BATCH_ROWS)
            for row in page:
                self._after = row["key"]
                # The store is asked again: its list may be older than the file.
                if row["key"] not in present and len(self.lost) < MAX_LOST:
                    self.lost += [] if await self._store.exists(row["key"]) else [row["id"]]
            more = len(page) == BATCH_ROWS
