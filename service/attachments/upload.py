"""The upload of a file: it is counted and hashed while it is written to the store."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Protocol

from service.attachments import content_type
from service.attachments.storage.base import Store
from service.core.errors import InvalidError, QuotaError, TooLargeError

MAX_NAME_CHARACTERS = 255
# C0, C1, separators and bidirectional overrides: they are invisible or change how the text after them is shown.
UNSHOWABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Upload(Protocol):
    """A file that a client sends."""

    async def name(self) -> str:
        """Read as far as the filename, and return it."""

    def content(self) -> AsyncIterator[bytes]:
        """Return the content piece by piece; a body that ends early raises an error."""


def clean_filename(path: str) -> str:
    """Return a filename without its path.

    Raises: InvalidError if the name is empty, too long or has characters that cannot be shown.
    """
    name = re.split(r"[/\\]", path)[-1]
    if not name.strip() or name in {".", ".."} or len(name) > MAX_NAME_CHARACTERS or UNSHOWABLE.search(name):
        raise InvalidError(
            "Input should have a file name of 1 to 255 characters without control characters", pointer="/file"
        )
    return name


class UploadReceiver:
    """The receiver of one upload: writes it to the store and knows its size, hash and first bytes.

    quota_left: the bytes that are left of the user's quota, None without a quota.
    """

    def __init__(self, store: Store, *, max_bytes: int, quota_left: int | None) -> None:
        self._store = store
        self._max_bytes, self._quota_left = max_bytes, quota_left
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.head = bytearray()

    async def receive(self, key: str, content: AsyncIterator[bytes]) -> None:
        """Write the content to the store under `key`; after an error nothing of it remains there.

        Raises: TooLargeError, QuotaError, UnavailableError, and the errors of `content`.
        """
        writer = await self._store.begin(key)
        try:
            async for data in content:
                self._count(data)
                await writer.write(data)
            await writer.finish()
        except BaseException:
            await asyncio.shield(writer.abandon())
            raise

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._max_bytes:
            raise TooLargeError(f"The file is too large: {self._max_bytes} bytes at most.")
        if self._quota_left is not None and self.size > self._quota_left:
            raise quota_exceeded(self._quota_left)
        self.sha256.update(data)
        self.head += data[: content_type.HEAD_BYTES - len(self.head)]


def quota_exceeded(quota_left: int) -> QuotaError:
    """Return the error for a file that is larger than the rest of the quota, in bytes."""
    return QuotaError(f"The file is too large: {quota_left} bytes are left of your quota.")
