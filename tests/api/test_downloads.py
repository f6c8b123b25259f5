"""What a download may be asked for, and what it is answered with (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from service.api.streaming import download
from service.api.streaming.download import disposition
from service.attachments.storage.base import CHUNK_BYTES
from tests.support.factories import Factory, User
from tests.support.problems import problem
from tests.support.sockets import on_port

CONTENT = bytes(range(256)) * 4  # 1024 bytes


@pytest.fixture
async def ada(make: Factory) -> User:
    """Someone with a task."""
    return await make.user()


async def put(make: Factory, user: User, content: bytes) -> tuple[str, str]:
    """Add a file and return its path and its entity tag."""
    task = await make.task(user)
    answer = await user.client.post(f"/tasks/{task}/attachments", files={"file": ("a.bin", content)})
    assert answer.status_code == 201
    return answer.headers["Location"], f'"{answer.json()["sha256"]}"'


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1023", 0, 1024),
        ("bytes=0-1024", 0, 1024),
        ("bytes=0-999999999999999999", 0, 1024),
        ("bytes=0-", 0, 1024),
        ("bytes=1-", 1, 1024),
        ("bytes=1023-", 1023, 1024),
        ("bytes=1023-1023", 1023, 1024),
        ("bytes=-1", 1023, 1024),
        ("bytes=-1023", 1, 1024),
        ("bytes=-1024", 0, 1024),
        ("bytes=-999999999999999999", 0, 1024),
        ("BYTES=5-6", 5, 7),
        ("bytes=007-0008", 7, 9),
        ("bytes= 5-6 ", 5, 7),
    ],
)
async def test_a_range_returns_part_of_the_file(make: Factory, ada: User, asked: str, start: int, stop: int) -> None:
    path, tag = await put(make, ada, CONTENT)
    got = await ada.client.get(path, headers={"Range": asked})
    assert got.status_code == 206
    assert got.content == CONTENT[start:stop]
    assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"
    assert got.headers["Content-Length"] == str(stop - start)
    assert got.headers["ETag"] == tag
    assert got.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "asked",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=0x1-2", "bytes=1", "items=0-1"),
        *("bytes=0-0,2-3", "bytes=-0-1", "bytes=--1", "bytes=1-2-3", "bytes=1.0-2", "bytes=+1-2"),
        *("bytes=" + "9" * 60_000 + "-", "bytes=\u0661-"),
    ],
    ids=lambda value: value[:20],
)
async def test_anything_but_a_single_range_returns_the_whole_file(make: Factory, ada: User, asked: str) -> None:
    path, _ = await put(make, ada, CONTENT)
    got = await ada.client.get(path, headers={b"Range": asked.encode()})
    assert (got.status_code, got.content) == (200, CONTENT)
    assert "Content-Range" not in got.headers
    twice = await ada.client.get(path, headers=[("Range", "bytes=0-1"), ("Range", "bytes=2-3")])
    assert (twice.status_code, twice.content) == (200, CONTENT)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=1024-1024", "bytes=-0", "bytes=999999999999999999-"])
async def test_a_range_beyond_the_end_gets_416_with_the_size(make: Factory, ada: User, asked: str) -> None:
    path, _ = await put(make, ada, CONTENT)
    refused = await ada.client.get(path, headers={"Range": asked})
    assert problem(refused, 416)["code"] == "range_not_satisfiable"
    assert refused.headers["Content-Range"] == "bytes */1024"


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-0", 416), ("bytes=-5", 200), ("", 200)]
)
async def test_an_empty_file_has_no_range(make: Factory, ada: User, asked: str, status: int) -> None:
    path, _ = await put(make, ada, b"")
    got = await ada.client.get(path, headers={"Range": asked})
    assert got.status_code == status
    if status == 200:
        assert (got.content, got.headers["Content-Length"]) == (b"", "0")
    else:
        assert got.headers["Content-Range"] == "bytes */0"


@pytest.mark.parametrize(
    ("condition", "status"),
    [("TAG", 206), ("W/TAG", 200), ('"other"', 200), ("Thu, 26 Nov 2026 00:00:00 GMT", 200), ("x", 200)],
)
async def test_a_range_with_if_range_is_returned_only_for_the_same_file(
    make: Factory, ada: User, condition: str, status: int
) -> None:
    path, tag = await put(make, ada, CONTENT)
    asked = {"Range": "bytes=10-19", "If-Range": condition.replace("TAG", tag)}
    got = await ada.client.get(path, headers=asked)
    assert got.status_code == status
    assert got.content == (CONTENT[10:20] if status == 206 else CONTENT)


@pytest.mark.parametrize("etags", ["TAG", "W/TAG", '"other", TAG', "*"])
async def test_a_file_with_a_matching_etag_is_not_sent_again(make: Factory, ada: User, etags: str) -> None:
    path, tag = await put(make, ada, CONTENT)
    for more in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=9999-"}):
        got = await ada.client.get(path, headers={"If-None-Match": etags.replace("TAG", tag), **more})
        assert (got.status_code, got.content) == (304, b"")
        assert got.headers["ETag"] == tag
    assert (await ada.client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_head_answers_as_get_does_and_ignores_ranges(make: Factory, ada: User) -> None:
    path, tag = await put(make, ada, CONTENT)
    got, headed = await ada.client.get(path), await ada.client.head(path, headers={"Range": "bytes=0-1"})
    assert (headed.status_code, headed.content) == (200, b"")
    own = ("content-length", "content-type", "etag", "accept-ranges", "content-disposition", "content-security-policy")
    assert {name: headed.headers[name] for name in own} == {name: got.headers[name] for name in own}
    assert (await ada.client.head(path, headers={"If-None-Match": tag})).status_code == 304


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("a.txt", "filename=\"a.txt\"; filename*=UTF-8''a.txt"),
        ('a"b\\c%41.txt', "filename=\"a_b_c_41.txt\"; filename*=UTF-8''a%22b%5Cc%2541.txt"),
        ("ø я.txt", "filename=\"_ _.txt\"; filename*=UTF-8''%C3%B8%20%D1%8F.txt"),
        ("\N{GRINNING FACE}'()*", "filename=\"_'()*\"; filename*=UTF-8''%F0%9F%98%80%27%28%29%2A"),
    ],
)
def test_a_file_name_is_encoded_for_old_and_new_clients(name: str, parameters: str) -> None:
    assert disposition(name) == f"attachment; {parameters}"
    assert disposition(name).isascii()


# On a socket


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    """Where the application is served."""
    async with on_port(app) as port:
        yield port


async def begin(port: int, user: User, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a file and read as far as its first byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {user.token}\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    return reader, writer


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def rest(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while part := await reader.read(1 << 20):
        body += part
    return body


@pytest.fixture
def reads(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was read from the store."""
    seen: list[int] = []
    store = app.state.services.attachments.store
    run = store.run

    async def counted(work: Any, *arguments: Any) -> Any:
        result = await run(work, *arguments)
        if isinstance(result, bytes):
            seen.append(len(result))
        return result

    monkeypatch.setattr(store, "run", counted)
    return seen


LARGE = b"x" * 20_000_000  # more than sockets hold


async def test_a_client_that_leaves_ends_the_reading(
    make: Factory, ada: User, app: FastAPI, port: int, reads: list[int]
) -> None:
    path, _ = await put(make, ada, LARGE)
    _, writer = await begin(port, ada, path)
    running = app.state.services.attachments._downloads._slots
    assert running.used == 1
    writer.transport.abort()
    await until(lambda: not running.used)
    assert 0 < sum(reads) < len(LARGE) / 2


async def test_a_client_that_reads_too_slowly_loses_its_download_slot(
    make: Factory,
    ada: User,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    path, _ = await put(make, ada, LARGE)
    monkeypatch.setattr(download, "BASE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(download, "MIN_BYTES_PER_SECOND", 1e12)
    reader, writer = await begin(port, ada, path)
    running = make.app.state.services.attachments._downloads._slots
    assert running.used == 1
    await until(lambda: not running.used)  # though it has not read on, and not left
    assert len(await rest(reader)) < len(LARGE)
    writer.close()
    assert logged[-1].startswith("INFO download aborted")


async def test_a_truncated_file_aborts_the_connection_and_a_range_resumes(
    make: Factory, ada: User, app: FastAPI, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tag = await put(make, ada, LARGE)
    key = await make.sql.fetchval("select key from attachments")
    place = app.state.services.attachments.store._path(key)
    reader, writer = await begin(port, ada, path)
    with place.open("r+b") as file:
        file.truncate(len(LARGE) - 1)
    body = (await rest(reader)).partition(b"\r\n\r\n")[2]
    assert len(LARGE) / 2 < len(body) < len(LARGE)
    writer.close()
    with place.open("r+b") as file:
        file.truncate(len(LARGE))
    asked = {"Range": f"bytes={len(body)}-", "If-Range": tag}
    got = await ada.client.get(path, headers=asked)
    assert (got.status_code, len(body) + len(got.content)) == (206, len(LARGE))


async def test_a_file_is_sent_in_chunks(make: Factory, ada: User, reads: list[int]) -> None:
    path, _ = await put(make, ada, LARGE)
    assert (await ada.client.get(path)).content == LARGE
    assert max(reads) == CHUNK_BYTES
