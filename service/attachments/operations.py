"""The operations on attachments, and how many run at once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from loguru import logger

from service.attachments import content_type
from service.attachments.schemas import Attachment, AttachmentQuery
from service.attachments.storage.base import MissingError, Store
from service.attachments.storage.local import Folder
from service.attachments.upload import Receiving, Upload, beyond, file_name
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import NotFoundError, ServiceError, StartError, UnavailableError
from service.core.pagination import Cursors
from service.core.settings import Settings
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.db.verdicts import permitted

S3 = "s3://"
MAX_RESTORED = 1000
CLOSE_SECONDS = 3.0


class Attachments:
    """The files, and how many may be under way."""

    def __init__(self, store: Store, *, largest: int, quota: int) -> None:
        self.store = store
        self.largest = largest
        self.removed = asyncio.Event()
        """Set where a file may be left to be removed."""
        self._quota = quota
        self._uploads = ConcurrencyLimiter("uploads", total=16, per_user=6)
        self._downloads = ConcurrencyLimiter("downloads", total=96, per_user=16)

    async def add(self, db: Database, viewer: Viewer, task_id: int, upload: Upload) -> dict[str, Any]:
        """Take a file in and give what is known of it.

        Raises NotFoundError, ForbiddenError, InvalidError, TooLargeError, QuotaError, UnavailableError; then nothing is
        left behind.
        """
        row = await q.attachments.check_upload(
            db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin
        )
        admitted = _permitted(row)
        receiving = Receiving(self.store, largest=self.largest, left=self._left(admitted["used"]))
        with self._uploads.slot(viewer.id):
            filename = file_name(await upload.name())
            key = f"{admitted['folder']}/{secrets.token_hex(16)}"
            await receiving.into(key, upload.content())
            try:
                added = await self._record(
                    db,
                    viewer,
                    task_id=task_id,
                    key=key,
                    filename=filename,
                    content_type=content_type.type_of(bytes(receiving.head), filename),
                    size=receiving.size,
                    sha256=receiving.sha256.hexdigest(),
                )
            except UnavailableError:  # whether it was committed is not known: the sweep will see
                raise
            except ServiceError:
                with suppress(UnavailableError):
                    await self.store.remove(key)
                raise
        logger.bind(task_id=task_id, attachment_id=added["id"], actor_id=viewer.id, size=added["size"]).info(
            "attachment added"
        )
        return added

    async def _record(self, db: Database, viewer: Viewer, **values: Any) -> dict[str, Any]:
        async with db.transaction() as transaction:
            if self._quota:
                await q.attachments.lock_quota(transaction, user_id=viewer.id)
            row = await q.attachments.create(
                transaction, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, quota=self._quota, **values
            )
        added = _permitted(row)
        if added.pop("verdict") == "full":
            raise beyond(self._left(added["used"]) or 0)
        return _shown(added)

    def _left(self, used: int) -> int | None:
        return max(0, self._quota - used) if self._quota else None

    async def page(
        self, db: Executor, viewer: Viewer, task_id: int, query: AttachmentQuery, *, cursors: Cursors
    ) -> dict[str, Any]:
        """Give a page `{items, next_cursor}`; NotFoundError, ForbiddenError, InvalidError for a foreign cursor."""
        bound_to = ["attachments", task_id]
        after = cursors.read(query.cursor, bound_to=bound_to)[1] if query.cursor is not None else None
        rows = await q.attachments.list(
            db,
            task_id=task_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            after_id=after,
            row_limit=query.limit + 1,
        )
        _permitted(rows[0] if rows else None)
        found = [_shown(row) for row in rows if row["is_attachment"]]
        items, more = found[: query.limit], len(found) > query.limit
        last = items[-1]["id"] if more else None
        return {"items": items, "next_cursor": last and cursors.make(value=last, key=last, bound_to=bound_to)}

    async def get(self, db: Executor, viewer: Viewer, task_id: int, attachment_id: int) -> dict[str, Any]:
        """Give what is known of an attachment, its key included; NotFoundError, ForbiddenError."""
        row = await q.attachments.get(
            db,
            task_id=task_id,
            attachment_id=attachment_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
        )
        return _permitted(row)

    @contextmanager
    def reading(
        self, db: Executor, viewer: Viewer, attachment: dict[str, Any], *, start: int, stop: int
    ) -> Iterator[AsyncGenerator[bytes]]:
        """Give an attachment's bytes from start to before stop; UnavailableError where there are too many readers."""
        with self._downloads.slot(viewer.id):
            yield self._pieces(db, viewer, attachment, start=start, stop=stop)

    async def _pieces(
        self, db: Executor, viewer: Viewer, attachment: dict[str, Any], *, start: int, stop: int
    ) -> AsyncGenerator[bytes]:
        reading = self.store.read(attachment["key"], size=attachment["size"], start=start, stop=stop)
        async with aclosing(reading) as pieces:
            try:
                async for piece in pieces:
                    yield piece
            except MissingError:
                await self.get(db, viewer, attachment["task_id"], attachment["id"])  # NotFoundError, if deleted since
                raise

    async def delete(self, db: Executor, viewer: Viewer, task_id: int, attachment_id: int) -> None:
        """Delete an attachment; NotFoundError, ForbiddenError. Its file goes behind the commit."""
        row = await q.attachments.delete(
            db,
            task_id=task_id,
            attachment_id=attachment_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
        )
        _permitted(row)
        self.removed.set()
        logger.bind(task_id=task_id, attachment_id=attachment_id, actor_id=viewer.id).info("attachment deleted")

    async def ended(self) -> None:
        """Wait until what is under way has ended, and taken back what it must."""
        await self._uploads.wait_until_idle()
        await self._downloads.wait_until_idle()

    async def still_there(self, db: Executor, viewer: Viewer, task_id: int) -> list[str]:
        """Give the keys of what went with the viewer's task and is still in the store.

        Raises UnavailableError where the store cannot say.
        """
        rows = await q.attachments.restorable(
            db,
            task_id=task_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            row_limit=MAX_RESTORED,
        )
        return [row["key"] for row in rows if not row["is_doubtful"] or await self.store.exists(row["key"])]


def _shown(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in Attachment.model_fields}


def _permitted(row: Any) -> dict[str, Any]:
    found = permitted(row)
    if found["verdict"] == "absent":
        raise NotFoundError("The task has no such attachment.")
    return found


def check(given: Settings) -> None:
    """StartError where what the store of ATTACHMENTS_URL takes is missing."""
    if given.attachments_url.startswith(S3):
        _bucket(given)


def _bucket(given: Settings) -> ModuleType:
    """Load what speaks S3, a large library and an option."""
    try:
        from service.attachments.storage import s3  # noqa: PLC0415
    except ImportError:
        line = f"ATTACHMENTS_URL={given.attachments_url!r}: takes aiobotocore, which is not installed: see the README"
        raise StartError(line) from None
    return s3


@asynccontextmanager
async def opened(given: Settings) -> AsyncIterator[Attachments]:
    """Open the store that ATTACHMENTS_URL names."""
    async with AsyncExitStack() as stack:
        store: Store
        if given.attachments_url.startswith(S3):
            store = await stack.enter_async_context(_bucket(given).opened(given))
        else:
            store = folder = Folder(Path(given.attachments_url.removeprefix("file://")))
            stack.callback(folder.close)
        attachments = Attachments(store, largest=given.attachment_max_bytes, quota=given.attachment_quota_bytes)
        try:
            yield attachments
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await attachments.ended()
