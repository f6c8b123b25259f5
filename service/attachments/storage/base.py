"""The protocol of file stores, and the errors that they share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.core.errors import UnavailableError

CHUNK_BYTES = 256 * 1024
RETRY_SECONDS = 10


class MissingError(UnavailableError):
    """The error of a file that the store does not have, or has with another size."""


@dataclass(frozen=True)
class StoredFile:
    """A finished file in the store."""

    key: str
    modified_at: datetime


class Writer(Protocol):
    """A file that is being written, invisible until it is finished; every call may raise UnavailableError."""

    async def write(self, data: bytes) -> None:
        """Append bytes to the file."""

    async def finish(self) -> None:
        """Make the file durable and visible."""

    async def abandon(self) -> None:
        """Remove the file, finished or not, if the store can be reached."""


class Store(Protocol):
    """A store of files under keys `FOLDER/NAME`; every call may raise UnavailableError."""

    async def begin(self, key: str) -> Writer:
        """Begin to write a file."""

    def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Return the bytes from `start` to before `stop` of a file that has this size.

        Raises: MissingError before the first bytes.
        """

    async def exists(self, key: str) -> bool:
        """Return whether the file exists."""

    async def remove(self, key: str) -> None:
        """Remove a file if it exists."""

    def list_files(self, folder: str) -> AsyncIterator[list[StoredFile]]:
        """Return a folder's files in batches, in the order of their keys."""

    async def remove_unfinished(self, folder: str, *, before: datetime) -> int:
        """Remove the unfinished files that writers left in a folder before a moment, and return their number."""


def unavailable(cause: BaseException) -> UnavailableError:
    """Return the error for a store that cannot be reached or fails."""
    error = UnavailableError("The store for attachments is unavailable.", retry_after=RETRY_SECONDS)
    error.__cause__ = cause
    return error


def not_found(key: str) -> MissingError:
    """Return the error for a missing file; its cause, which only the log shows, names the key."""
    error = MissingError("The store does not have this file now.", retry_after=RETRY_SECONDS)
    error.__cause__ = LookupError(key)
    return error
