"""A file that comes in: counted, hashed and written on the way."""

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
# What is no character of a name, or turns what follows it round: C0, C1, separators, bidirectional overrides.
UNSHOWABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Upload(Protocol):
    """A file that a client sends."""

    async def name(self) -> str:
        """Read as far as the name that the client gives it."""

    def content(self) -> AsyncIterator[bytes]:
        """Read the rest; what ends too early is an error and no end."""


def file_name(given: str) -> str:
    """Give a file's name without its path; InvalidError where nothing is left, or what cannot be shown."""
    name = re.split(r"[/\\]", given)[-1]
    if not name.strip() or name in {".", ".."} or len(name) > MAX_NAME_CHARACTERS or UNSHOWABLE.search(name):
        raise InvalidError("takes a file name of 1 to 255 characters without control characters", pointer="/file")
    return name


class Receiving:
    """What has come in of a file."""

    def __init__(self, store: Store, *, largest: int, left: int | None) -> None:
        self._store = store
        self._largest, self._left = largest, left
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.head = bytearray()

    async def into(self, key: str, content: AsyncIterator[bytes]) -> None:
        """Write all of it to the store; where that comes to nothing, nothing is left there."""
        writing = await self._store.begin(key)
        try:
            async for data in content:
                self._count(data)
                await writing.write(data)
            await writing.finish()
        except BaseException:
            await asyncio.shield(writing.abandon())
            raise

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._largest:
            raise TooLargeError(f"The file is too large: {self._largest} bytes at most.")
        if self._left is not None and self.size > self._left:
            raise beyond(self._left)
        self.sha256.update(data)
        self.head += data[: content_type.HEAD_BYTES - len(self.head)]


def beyond(left: int) -> QuotaError:
    """Give the error for a file that is larger than what is left of a quota."""
    return QuotaError(f"The file is too large: {left} bytes are left of your quota.")
