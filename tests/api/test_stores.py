"""What each of the stores keeps to."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from secrets import token_hex

import pytest

from service.attachments.storage.base import CHUNK_BYTES, MissingError, Store
from service.attachments.storage.s3 import PART_BYTES
from tests.support.attachments import Kind

FOLDER = "0123456789abcdef" * 2
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 999_999, 1_000_000, 1_000_001]
SIZES += [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7]


def key_of() -> str:
    return f"{FOLDER}/{token_hex(16)}"


def content_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def put(store: Store, content: bytes, *, piece: int = 65_536) -> str:
    key = key_of()
    writing = await store.begin(key)
    for start in range(0, len(content), piece):
        await writing.write(content[start : start + piece])
    await writing.finish()
    return key


async def got(store: Store, key: str, *, size: int, start: int = 0, stop: int | None = None) -> bytes:
    read = store.read(key, size=size, start=start, stop=size if stop is None else stop)
    return b"".join([piece async for piece in read])


@pytest.mark.parametrize("size", SIZES)
async def test_a_written_file_is_read_back(store: Store, size: int) -> None:
    content = content_of(size)
    key = await put(store, content)
    assert await got(store, key, size=size) == content
    assert await store.exists(key)


async def test_a_range_of_a_file_is_read_and_no_more(store: Store) -> None:
    content = content_of(700_000)
    key = await put(store, content)
    for start, stop in ((0, 1), (1, 2), (699_999, 700_000), (0, 699_999), (1, 700_000), (262_143, 262_145)):
        assert await got(store, key, size=700_000, start=start, stop=stop) == content[start:stop]


async def test_a_file_is_invisible_until_it_is_complete(store: Store) -> None:
    key = key_of()
    writing = await store.begin(key)
    await writing.write(content_of(PART_BYTES + 1))
    assert not await store.exists(key)
    assert [page async for page in store.list_files(FOLDER)] == []
    with pytest.raises(MissingError):
        await got(store, key, size=PART_BYTES + 1)
    await writing.finish()
    assert await store.exists(key)


@pytest.mark.parametrize("size", [0, 10, CHUNK_BYTES, PART_BYTES + 1])
@pytest.mark.parametrize("finished", [False, True])
async def test_an_abandoned_write_leaves_no_file(store: Store, kind: Kind, size: int, finished: bool) -> None:
    writing = await store.begin(key_of())
    await writing.write(content_of(size))
    if finished:
        await writing.finish()
    await writing.abandon()
    assert await kind.held(store) == []


async def test_an_unknown_key_is_missing(store: Store) -> None:
    key = key_of()
    assert not await store.exists(key)
    with pytest.raises(MissingError):
        await got(store, key, size=1)
    await store.remove(key)


@pytest.mark.parametrize("size", [0, 9, 11])
@pytest.mark.parametrize("part", [False, True])
async def test_a_file_of_another_size_is_missing(store: Store, size: int, part: bool) -> None:
    key = await put(store, content_of(10))
    with pytest.raises(MissingError):
        await got(store, key, size=size, start=min(size, 1) if part else 0)


async def test_a_removed_file_is_missing_and_open_reads_continue(store: Store) -> None:
    content = content_of(2_000_000)
    key = await put(store, content)
    async with aclosing(store.read(key, size=len(content), start=0, stop=len(content))) as pieces:
        first = await anext(pieces)
        await store.remove(key)
        assert not await store.exists(key)
        assert first + b"".join([piece async for piece in pieces]) == content
    await store.remove(key)


async def test_files_are_listed_in_the_order_of_their_keys_with_their_time(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    keys = [await put(store, b"x") for _ in range(20)]
    found = [one for page in [page async for page in store.list_files(FOLDER)] for one in page]
    assert [one.key for one in found] == sorted(keys)
    assert all(before < one.modified_at < datetime.now(UTC) + timedelta(seconds=5) for one in found)
    assert [page async for page in store.list_files("f" * 32)] == []


async def test_old_parts_of_dead_writers_are_removed(store: Store, kind: Kind) -> None:
    kept = await put(store, b"kept")
    writing = await store.begin(key_of())
    await writing.write(content_of(PART_BYTES + 1))
    assert (
        await store.remove_unfinished(FOLDER, before=datetime(2010, 1, 1, tzinfo=UTC)) == 0
    )  # moto's uploads are all of that year
    assert len(await kind.held(store)) == 2
    assert await store.remove_unfinished(FOLDER, before=datetime.now(UTC) + timedelta(minutes=1)) == 1
    assert await kind.held(store) == [kept]
    await writing.abandon()
