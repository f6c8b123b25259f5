"""The operations on attachments, and their store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from loguru import logger

from service.attachments import content_type
from service.attachments.schemas import Attachment, AttachmentListParams
from service.attachments.storage.base import MissingError, Store
from service.attachments.storage.local import LocalFolder
from service.attachments.upload import Upload, UploadReceiver, clean_filename, quota_exceeded
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import NotFoundError, ServiceError, StartError, UnavailableError
from service.core.pagination import Cursors
from service.core.settings import Settings
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.db.verdicts import permitted

S3_SCHEME = "s3://"
MAX_RESTORED = 1000
CLOSE_SECONDS = 3.0

SLOT_TIMEOUT_SECONDS = 3.0


class Attachments:
    """The operations on attachments of one process, with limits of concurrent uploads and downloads.

    removed: set when an operation of this process leaves files to remove.
    """

    def __init__(self, store: Store, *, max_bytes: int, quota_bytes: int) -> None:
        self.store = store
        self.max_bytes = max_bytes
        self.removed = asyncio.Event()
        self._quota_bytes = quota_bytes
        self._uploads = ConcurrencyLimiter("uploads", total=16, per_user=6)
        self._downloads = ConcurrencyLimiter("downloads", total=96, per_user=16)

    async def add(self, db: Database, viewer: Viewer, task_id: int, upload: Upload) -> dict[str, Any]:
        """Receive a file and return its attachment; after an error neither row nor file remains.

        Raises: NotFoundError, ForbiddenError, InvalidError, TooLargeError, QuotaError, UnavailableError.
        """
        row = await q.attachments.check_upload(
            db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin
        )
        target = _permitted(row)
        receiver = UploadReceiver(self.store, max_bytes=self.max_bytes, quota_left=self._quota_left(target["used"]))
        async with self._uploads.slot_within(SLOT_TIMEOUT_SECONDS, viewer.id):
            filename = clean_filename(await upload.name())
            key = f"{target['folder']}/{secrets.token_hex(16)}"
            await receiver.receive(key, upload.content())
            try:
                added = await self._insert(
                    db,
                    viewer,
                    task_id=task_id,
                    key=key,
                    filename=filename,
                    content_type=content_type.detect(bytes(receiver.head), filename),
                    size=receiver.size,
                    sha256=receiver.sha256.hexdigest(),
                )
            except UnavailableError:  # the row may be committed: the file stays, and the sweep decides later
                raise
            except ServiceError:
                with suppress(UnavailableError):
                    await self.store.remove(key)
                raise
        logger.bind(task_id=task_id, attachment_id=added["id"], actor_id=viewer.id, size=added["size"]).info(
            "attachment added"
        )
        return added

    async def _insert(self, db: Database, viewer: Viewer, **values: Any) -> dict[str, Any]:
        async with db.transaction() as transaction:
            if self._quota_bytes:
                await q.attachments.lock_quota(transaction, user_id=viewer.id)
            row = await q.attachments.create(
                transaction, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, quota=self._quota_bytes, **values
            )
        added = _permitted(row)
        if added.pop("verdict") == "full":
            raise quota_exceeded(self._quota_left(added["used"]) or 0)
        return _public(added)

    def _quota_left(self, used: int) -> int | None:
        return max(0, self._quota_bytes - used) if self._quota_bytes else None

    async def list(
        self, db: Executor, viewer: Viewer, task_id: int, params: AttachmentListParams, *, cursors: Cursors
    ) -> dict[str, Any]:
        """Return a page of a task's attachments as `{items, next_cursor}`.

        Raises: NotFoundError, ForbiddenError, InvalidError for a cursor of another list.
        """
        page = cursors.page(params.cursor, limit=params.limit, bound_to=["attachments", task_id])
        rows = await q.attachments.list(
            db,
            task_id=task_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            after_id=page.after_id,
            row_limit=page.row_limit,
        )
        _permitted(rows[0] if rows else None)
        return page.cut([_public(row) for row in rows if row["is_attachment"]])

    async def get(self, db: Executor, viewer: Viewer, task_id: int, attachment_id: int) -> dict[str, Any]:
        """Return the row of an attachment with its storage key. Raises: NotFoundError, ForbiddenError."""
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
        """Open an attachment's bytes from `start` to before `stop`. Raises: UnavailableError for too many downloads."""
        with self._downloads.slot(viewer.id):
            yield self._read(db, viewer, attachment, start=start, stop=stop)

    async def _read(
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
        """Delete an attachment; its file is removed after the commit. Raises: NotFoundError, ForbiddenError."""
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
        """Wait until all uploads and downloads have ended."""
        await self._uploads.wait_until_idle()
        await self._downloads.wait_until_idle()

    async def restorable_keys(self, db: Executor, viewer: Viewer, task_id: int) -> Sequence[str]:
        """Return the storage keys of the viewer's deleted task whose files still exist.

        Raises: UnavailableError if the store does not answer.
        """
        rows = await q.attachments.restorable(
            db,
            task_id=task_id,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            row_limit=MAX_RESTORED,
        )
        return [row["key"] for row in rows if not row["is_doubtful"] or await self.store.exists(row["key"])]


def _public(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in Attachment.model_fields}


def _permitted(row: Any) -> dict[str, Any]:
    found = permitted(row)
    if found["verdict"] == "absent":
        raise NotFoundError("The task has no such attachment.")
    return found


def check_storage(settings: Settings) -> None:
    """Raise StartError if the store of ATTACHMENTS_URL needs a package that is not installed."""
    if settings.attachments_url.startswith(S3_SCHEME):
        _import_s3(settings)


def _import_s3(settings: Settings) -> ModuleType:
    """Import the S3 store only where it is used: its library is large and optional."""
    try:
        from service.attachments.storage import s3  # noqa: PLC0415
    except ImportError:
        line = (
            f"ATTACHMENTS_URL={settings.attachments_url!r}: takes aiobotocore, which is not installed: see the README"
        )
        raise StartError(line) from None
    return s3


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Attachments]:
    """Open the store of ATTACHMENTS_URL."""
    async with AsyncExitStack() as stack:
        store: Store
        if settings.attachments_url.startswith(S3_SCHEME):
            store = await stack.enter_async_context(_import_s3(settings).opened(settings))
        else:
            store = folder = LocalFolder(Path(settings.attachments_url.removeprefix("file://")))
            stack.callback(folder.close)
        attachments = Attachments(
            store, max_bytes=settings.attachment_max_bytes, quota_bytes=settings.attachment_quota_bytes
        )
        try:
            yield attachments
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await attachments.ended()
