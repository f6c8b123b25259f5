"""What a store of files can do, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.core.errors import UnavailableError

CHUNK_BYTES = 256 * 1024
RETRY_SECONDS = 10


class MissingError(UnavailableError):
    """The store does not have the file, or not as it was written."""


@dataclass(frozen=True)
class Found:
    """A whole file that is in the store."""

    key: str
    modified_at: datetime


class Writing(Protocol):
    """A file that is being written. Nobody sees it before it is finished; every call may raise UnavailableError."""

    async def write(self, data: bytes) -> None:
        """Add bytes to its end."""

    async def finish(self) -> None:
        """Give it its name. From here on it is there, whatever ends."""

    async def abandon(self) -> None:
        """Leave nothing of it, as far as the store can be reached."""


class Store(Protocol):
    """Files under keys `FOLDER/NAME`; every call may raise UnavailableError."""

    async def begin(self, key: str) -> Writing:
        """Begin to write a file."""

    def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Give the bytes from start to before stop of a file of this size; MissingError before the first one."""

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""

    async def remove(self, key: str) -> None:
        """Take a file away; that it is gone already is no error."""

    def listed(self, folder: str) -> AsyncIterator[list[Found]]:
        """Give a folder's files in the order of their keys, some at a time."""

    async def clear(self, folder: str, *, before: datetime) -> int:
        """Take away what writers of a folder left that died before then; how much it was."""


def away(cause: BaseException) -> UnavailableError:
    """Give the error for a store that cannot be reached, or does not do as it is told."""
    error = UnavailableError("The store for attachments is away.", retry_after=RETRY_SECONDS)
    error.__cause__ = cause
    return error


def missing(key: str) -> MissingError:
    """Give the error for a file that is not there as it should be; the log is told which."""
    error = MissingError("The store does not have this file now.", retry_after=RETRY_SECONDS)
    error.__cause__ = LookupError(key)
    return error
