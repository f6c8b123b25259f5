"""Files in a folder of this machine, each written under another name, synced and then renamed."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from service.attachments.storage.base import CHUNK_BYTES, RETRY_SECONDS, StoredFile, not_found, unavailable
from service.core.errors import UnavailableError

THREADS = 8
NAME = re.compile(r"[0-9a-f]{32}")
PART = re.compile(r"[0-9a-f]{32}\.part")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class LocalFolder:
    """A store in a local folder; its own threads make the calls to the file system, because a disk may hang."""

    def __init__(self, root: Path) -> None:
        """Create the folder, only now: if it disappears later, like an unmounted volume, the store is unavailable."""
        self._root = root
        with suppress(OSError):  # the first use reports it
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="attachments")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def begin(self, key: str) -> _PartWriter:
        """Begin to write a file."""
        path = self._path(key)
        part = path.with_name(f"{path.name}.part")
        return _PartWriter(self, part, path, await self.run(self._create, part))

    async def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Return bytes of a file; a reader that has begun continues after the file's removal."""
        file = await self.run(_open, self._path(key), size)
        if file is None:
            raise not_found(key)
        try:
            while start < stop:
                data = await self.run(os.pread, file.fileno(), min(CHUNK_BYTES, stop - start), start)
                if not data:
                    raise not_found(key)
                start += len(data)
                yield data
        finally:
            await self.run(file.close)

    async def exists(self, key: str) -> bool:
        """Return whether the file exists."""
        return await self.run(self._exists, self._path(key))

    async def remove(self, key: str) -> None:
        """Remove a file if it exists."""
        await self.run(self._remove, self._path(key))

    async def list_files(self, folder: str) -> AsyncIterator[list[StoredFile]]:
        """Return a folder's files, one subfolder per batch."""
        for subfolder in await self.run(_subfolders, self._root / folder):
            if files := await self.run(_files, subfolder, NAME):
                yield [StoredFile(f"{folder}/{name}", modified_at) for name, modified_at in files]

    async def remove_unfinished(self, folder: str, *, before: datetime) -> int:
        """Remove the unfinished files that were last written before a moment, and return their number."""
        removed = 0
        for subfolder in await self.run(_subfolders, self._root / folder):
            for name, modified_at in await self.run(_files, subfolder, PART):
                if modified_at < before:
                    await self.run(partial((subfolder / name).unlink, missing_ok=True))
                    removed += 1
        return removed

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run a function in a thread to its end, even if the caller is cancelled. Raises: UnavailableError."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        except OSError as error:
            if error.errno in FULL:
                raise UnavailableError("The store for attachments is full.", retry_after=RETRY_SECONDS) from error
            raise unavailable(error) from error

    def _path(self, key: str) -> Path:
        folder, name = key.split("/")
        return self._root / folder / name[:2] / name  # in one of 256 subfolders

    def _exists(self, path: Path) -> bool:
        self._root.stat()  # without its root the whole store is unavailable, and not only this file missing
        return path.is_file()

    def _remove(self, path: Path) -> None:
        if self._exists(path):
            path.unlink(missing_ok=True)

    def _create(self, part: Path) -> io.FileIO:
        subfolder = part.parent
        if not subfolder.is_dir():
            for folder in (subfolder.parent, subfolder):
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync(folder.parent)
        return io.FileIO(part, "x", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600))


class _PartWriter:
    """A file that is written as `NAME.part` and renamed at its end."""

    def __init__(self, folder: LocalFolder, part: Path, path: Path, file: io.FileIO) -> None:
        self._folder = folder
        self._part, self._path = part, path
        self._file = file
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        """Append bytes to the file, as soon as a chunk is full."""
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            await self._folder.run(self._write)

    async def finish(self) -> None:
        """Write the rest, sync the file and rename it."""
        await self._folder.run(self._finish)

    async def abandon(self) -> None:
        """Remove the file, renamed or not."""
        with suppress(UnavailableError):
            await self._folder.run(self._abandon)

    def _write(self) -> None:
        rest = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _finish(self) -> None:
        self._write()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._path)
        _sync(self._path.parent)

    def _abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        for path in (self._part, self._path):
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, size: int) -> io.FileIO | None:
    """Open a file that has this size; return None if there is none."""
    try:
        file = io.FileIO(path, opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size == size:
        return file
    file.close()
    return None


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:  # no file was written yet
        return []


def _files(subfolder: Path, pattern: re.Pattern[str]) -> list[tuple[str, datetime]]:
    found = []
    with os.scandir(subfolder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed since the folder was read
                if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    modified_at = entry.stat(follow_symlinks=False).st_mtime
                    found.append((entry.name, datetime.fromtimestamp(modified_at, UTC)))
    return sorted(found)
