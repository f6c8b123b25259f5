"""What the body of an upload may be, byte by byte: its frame, its headers, the file's name, and when it is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api.pipeline import body_limits
from service.api.pipeline.body_limits import MAX_BODY_BYTES, MAX_MULTIPART_OVERHEAD_BYTES
from service.api.streaming import multipart
from tests.conftest import FILES
from tests.support.factories import Factory, User
from tests.support.problems import problem
from tests.support.sockets import on_port

BOUNDARY = "boundary"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
NAMED = b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
END = b"\r\n--boundary--\r\n"


def part(headers: bytes = NAMED, content: bytes = b"hello") -> bytes:
    return b"--boundary\r\n" + headers + content


@pytest.fixture
async def ada(make: Factory) -> User:
    """Someone with a task."""
    return await make.user()


@pytest.fixture
async def path(make: Factory, ada: User) -> str:
    """Where that task's attachments are."""
    return f"/tasks/{await make.task(ada)}/attachments"


@pytest.fixture(autouse=True)
async def _nothing_left(make: Factory) -> AsyncIterator[None]:
    """Whatever is refused leaves no row and no file."""
    before = left()
    yield
    rows = await make.sql.fetchval("select count(*) from attachments")
    assert len(left() - before) == rows


def left() -> set[Path]:
    return {one for one in Path(FILES).rglob("*") if one.is_file()}


async def send(user: User, path: str, body: bytes, *, kind: str = KIND) -> httpx.Response:
    return await user.client.post(path, content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (b'content-disposition: FORM-DATA; name="file"; filename="a.txt"\r\n\r\n', "a.txt"),
        (b"Content-Disposition: form-data; filename=a.txt; name=file\r\nContent-Type: x/y\r\n\r\n", "a.txt"),
        (b'Content-Disposition: form-data; name="file"; filename="a \\"b\\" c"\r\n\r\n', 'a "b" c'),
        (b'Content-Disposition: form-data; name="file"; filename="a%22b%41"\r\n\r\n', 'a"b%41'),
        ('Content-Disposition: form-data; name="file"; filename="Отчёт; 1.txt"\r\n\r\n'.encode(), "Отчёт; 1.txt"),
        (b'Content-Disposition: form-data; name="file"; filename="../../../etc/passwd"\r\n\r\n', "passwd"),
        (b'Content-Disposition: form-data; name="file"; filename="\\\\server\\share\\a.txt"\r\n\r\n', "a.txt"),
        (b'Content-Disposition: form-data; name="file"; filename="a"; filename*=UTF-8\'\'b\r\n\r\n', "a"),
        (NAMED.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: binary\r\n\r\n"), "a.txt"),
    ],
)
async def test_a_name_is_read_as_clients_write_it(ada: User, path: str, headers: bytes, name: str) -> None:
    answer = await send(ada, path, part(headers) + END)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["filename"], answer.json()["size"]) == (name, 5)


@pytest.mark.parametrize(
    "name",
    [
        b"a\0b",
        b"a\x01b",
        b"a\x7fb",
        b"a%0Ab",
        b"a%0D",
        b"\xc2\x85",
        b"\xff",
        b"\xed\xa0\x80",
        b"",
        b"..",
        b"a/",
        b"a" * 256,
    ],
)
async def test_an_invalid_file_name_is_refused(ada: User, path: str, name: bytes) -> None:
    body = part(NAMED.replace(b"a.txt", name)) + END
    problem(await send(ada, path, body), 422, pointers={"/file"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"--",
        b"\r\n--",
        b"\r\n--boundar",
        b"\r\n--boundaryx",
        b"--boundary",
        b"\r\n-" * 50_000,
        b"\r" * 99_999,
        bytes(range(256)) * 300,
    ],
)
@pytest.mark.parametrize("piece", [1_000_000, 1000, 7])
async def test_content_similar_to_a_boundary_is_content(ada: User, path: str, content: bytes, piece: int) -> None:
    body = part(content=content) + END

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    answer = await ada.client.post(path, content=pieces(), headers={"Content-Type": KIND})
    assert answer.status_code == 201, answer.text
    got = await ada.client.get(answer.headers["Location"])
    assert got.content == content


NO_FILE: list[tuple[bytes, str]] = [
    (b"--boundary--\r\n", "/file"),
    (part(b'Content-Disposition: form-data; name="file"\r\n\r\n') + END, "/file"),
    (part(b'Content-Disposition: form-data; name="other"; filename="a"\r\n\r\n') + END, "/other"),
    (part(b'Content-Disposition: form-data; filename="a"\r\n\r\n') + END, "/"),
    (part(b'Content-Disposition: attachment; name="file"; filename="a"\r\n\r\n') + END, "/file"),
    (part(b"\r\n") + END, "/"),
    (part(b"Content-Type: text/plain\r\n\r\n") + END, "/"),
    (part() + b"\r\n" + part() + END, ""),
    (part() + b"\r\n" + part(b'Content-Disposition: form-data; name="x"\r\n\r\n') + END, ""),
    (part(b'Content-Disposition: form-data; name="x"\r\n\r\n') + b"\r\n" + part() + END, "/x"),
    (part(NAMED.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")) + END, "/file"),
    (part(b'Content-Disposition: form-data; name="' + b"x" * 3000 + b'"\r\n\r\n') + END, "/" + "x" * 200),
]


@pytest.mark.parametrize(("body", "pointer"), NO_FILE)
async def test_a_form_without_exactly_one_file_is_refused(ada: User, path: str, body: bytes, pointer: str) -> None:
    problem(await send(ada, path, body), 422, pointers={pointer})


BROKEN = [
    b"",
    b"hello",
    b"--",
    b"--bound",
    b"--other\r\n" + NAMED + b"x\r\n--other--\r\n",
    part(),
    part() + b"\r\n--boundary",
    part() + b"\r\n--boundary-",
    part(b"Content-Disposition"),
    part(NAMED[:-2]),
    part(b"no colon\r\n\r\n") + END,
    part(b": empty\r\n\r\n") + END,
    part(b"A: b\r\r\n\r\n") + END,
    part(b"A\0: b\r\n\r\n") + END,
    part(b"A: " + b"b" * 5000 + b"\r\n" + NAMED) + END,
    part(b"A" * 5000 + b": b\r\n" + NAMED) + END,
    part(b"A: b\r\n" * 20 + NAMED) + END,
    b"--boundaryx\r\n" + NAMED + b"x" + END,
    b"\r\n" * 100_000,
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_a_broken_body_is_malformed(ada: User, path: str, body: bytes) -> None:
    assert problem(await send(ada, path, body), 400)["code"] == "malformed"


async def test_content_that_is_all_boundaries_is_refused_before_it_costs_much(ada: User, path: str) -> None:
    for times, status in ((multipart.MAX_DELIMITERS - 1, 201), (multipart.MAX_DELIMITERS + 1, 400)):
        answer = await send(ada, path, part(content=b"\r\n--boundary-x" * times) + END)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=boundary", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "b" * 71, 400),
        ("multipart/form-data; boundary=other", 400),
        ("Multipart/Form-Data; Charset=utf-8; Boundary=boundary", 201),
        ('multipart/form-data; boundary="boundary"', 201),
    ],
)
async def test_the_content_type_sets_the_boundary_of_the_body(ada: User, path: str, kind: str, status: int) -> None:
    answer = await send(ada, path, part() + END, kind=kind)
    if status == 201:
        assert answer.status_code == 201
    else:
        problem(answer, status)


async def test_the_multipart_overhead_of_a_file_is_limited(ada: User, path: str, app: FastAPI) -> None:
    max_bytes = app.state.services.attachments.max_bytes
    for epilogue, status in (
        (MAX_MULTIPART_OVERHEAD_BYTES - 1000, 201),
        (max_bytes + MAX_MULTIPART_OVERHEAD_BYTES, 413),
    ):
        answer = await send(ada, path, part() + END + b"x" * epilogue)
        assert answer.status_code == status


async def test_an_unauthenticated_upload_is_refused_at_any_size(client: httpx.AsyncClient, path: str) -> None:
    for size in (100, MAX_BODY_BYTES + 1):
        answer = await client.post(path, content=part(content=b"x" * size) + END, headers={"Content-Type": KIND})
        assert problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_parameter_is_refused_and_a_wrong_method_gets_the_allowed_ones(ada: User, path: str) -> None:
    problem(await send(ada, f"{path}?x=1", part() + END), 422, pointers={"/query/x"})
    assert problem(await ada.client.put(path), 405)


# On a socket


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    """Where the application is served."""
    async with on_port(app) as port:
        yield port


def head(user: User, path: str, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {user.token}",
        f"Content-Type: {KIND}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def dial(port: int, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(sent)
    await writer.drain()
    return reader, writer


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("length", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_client_that_disconnects_during_its_upload_leaves_no_file(
    ada: User, path: str, port: int, *, app: FastAPI, length: str, how: str
) -> None:
    before, running = left(), app.state.services.attachments._uploads._slots
    body = part(content=b"x" * 400_000)
    if length.startswith("Transfer"):
        body = b"%x\r\n%b\r\n" % (len(body), body)
    _, writer = await dial(port, head(ada, path, length), body)
    await until(lambda: left() - before)
    assert running.used == 1
    writer.transport.abort() if how == "abort" else writer.close()
    await until(lambda: not running.used)
    assert left() == before


async def test_a_client_that_stops_during_its_upload_gets_408(
    ada: User, path: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limits, "BODY_PART_TIMEOUT_SECONDS", 0.2)
    reader, writer = await dial(port, head(ada, path, "Content-Length: 5000"), part())
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_client_that_sends_too_slowly_loses_its_upload_slot(
    ada: User, path: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "BASE_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(multipart, "MIN_BYTES_PER_SECOND", 10_000)
    reader, writer = await dial(port, head(ada, path, "Content-Length: 5000000"), part())
    answer = asyncio.create_task(reader.readline())
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
    assert answer.result().startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_refusal_is_sent_before_the_body_arrives(ada: User, path: str, port: int, make: Factory) -> None:
    bob = await make.user()
    for user, where, status in ((bob, path, b"403"), (ada, f"/tasks/{2**60}/attachments", b"404")):
        reader, writer = await dial(port, head(user, where, "Content-Length: 5000000", "Expect: 100-continue"))
        assert (await reader.readline()).split()[1] == status
        writer.close()
    reader, writer = await dial(port, head(ada, path, "Content-Length: 50000000", "Expect: 100-continue"))
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
