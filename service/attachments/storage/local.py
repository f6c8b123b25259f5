"""Files in a folder of this machine: written beside their place, synced, then put into it."""

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

from service.attachments.storage.base import CHUNK_BYTES, RETRY_SECONDS, Found, away, missing
from service.core.errors import UnavailableError

THREADS = 8
NAME = re.compile(r"[0-9a-f]{32}")
PART = re.compile(r"[0-9a-f]{32}\.part")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class Folder:
    """The store. Its calls to the file system are made in threads of its own: a disk may hang."""

    def __init__(self, root: Path) -> None:
        """Make the folder, once: one that is gone later on is away, as where its volume is not mounted."""
        self._root = root
        with suppress(OSError):  # whoever uses it is told
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="attachments")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def begin(self, key: str) -> _Part:
        """Begin to write a file."""
        place = self._place(key)
        part = place.with_name(f"{place.name}.part")
        return _Part(self, part, place, await self.run(self._opened, part))

    async def read(self, key: str, *, size: int, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Give bytes of a file; who has begun goes on where the file is removed meanwhile."""
        file = await self.run(_whole, self._place(key), size)
        if file is None:
            raise missing(key)
        try:
            while start < stop:
                data = await self.run(os.pread, file.fileno(), min(CHUNK_BYTES, stop - start), start)
                if not data:
                    raise missing(key)
                start += len(data)
                yield data
        finally:
            await self.run(file.close)

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await self.run(self._exists, self._place(key))

    async def remove(self, key: str) -> None:
        """Take a file away."""
        await self.run(self._remove, self._place(key))

    async def listed(self, folder: str) -> AsyncIterator[list[Found]]:
        """Give a folder's files, those of one shelf at a time."""
        for shelf in await self.run(_shelves, self._root / folder):
            if found := await self.run(_files, shelf, NAME):
                yield [Found(f"{folder}/{name}", modified_at) for name, modified_at in found]

    async def clear(self, folder: str, *, before: datetime) -> int:
        """Take away what was not written to its end."""
        cleared = 0
        for shelf in await self.run(_shelves, self._root / folder):
            for name, modified_at in await self.run(_files, shelf, PART):
                if modified_at < before:
                    await self.run(partial((shelf / name).unlink, missing_ok=True))
                    cleared += 1
        return cleared

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it in a thread, to its end even where nobody waits for it any more."""
        doing = asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            raise
        except OSError as error:
            if error.errno in FULL:
                raise UnavailableError("The store for attachments is full.", retry_after=RETRY_SECONDS) from error
            raise away(error) from error

    def _place(self, key: str) -> Path:
        folder, name = key.split("/")
        return self._root / folder / name[:2] / name  # on one of 256 shelves

    def _exists(self, place: Path) -> bool:
        self._root.stat()  # where it is gone, all of it is away, and not only this file
        return place.is_file()

    def _remove(self, place: Path) -> None:
        if self._exists(place):
            place.unlink(missing_ok=True)

    def _opened(self, part: Path) -> io.FileIO:
        shelf = part.parent
        if not shelf.is_dir():
            for made in (shelf.parent, shelf):
                made.mkdir(mode=0o700, exist_ok=True)
                _sync(made.parent)
        return io.FileIO(part, "x", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600))


class _Part:
    """A file that is not in its place yet."""

    def __init__(self, folder: Folder, part: Path, place: Path, file: io.FileIO) -> None:
        self._folder = folder
        self._part, self._place = part, place
        self._file = file
        self._waiting = bytearray()

    async def write(self, data: bytes) -> None:
        """Write it with the next full chunk."""
        self._waiting += data
        if len(self._waiting) >= CHUNK_BYTES:
            await self._folder.run(self._write)

    async def finish(self) -> None:
        """Write the rest, sync, and put the file into its place."""
        await self._folder.run(self._finish)

    async def abandon(self) -> None:
        """Remove it, whether it is in its place or not."""
        with suppress(UnavailableError):
            await self._folder.run(self._abandon)

    def _write(self) -> None:
        rest = memoryview(bytes(self._waiting))
        self._waiting.clear()
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _finish(self) -> None:
        self._write()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._place)
        _sync(self._place.parent)

    def _abandon(self) -> None:
        with suppress(OSError):
            self._file.close()
        for one in (self._part, self._place):
            one.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole(place: Path, size: int) -> io.FileIO | None:
    try:
        file = io.FileIO(place, opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size == size:
        return file
    file.close()
    return None


def _shelves(folder: Path) -> list[Path]:
    try:
        return sorted(shelf for shelf in folder.iterdir() if shelf.is_dir() and not shelf.is_symlink())
    except FileNotFoundError:  # nothing was written yet
        return []


def _files(shelf: Path, named: re.Pattern[str]) -> list[tuple[str, datetime]]:
    found = []
    with os.scandir(shelf) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # removed since
                if named.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    modified_at = entry.stat(follow_symlinks=False).st_mtime
                    found.append((entry.name, datetime.fromtimestamp(modified_at, UTC)))
    return sorted(found)
