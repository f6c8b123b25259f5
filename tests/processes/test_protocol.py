"""What a connection may send before it is a request, and what it is told where it may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvloop
from fastapi import FastAPI, Request, Response

from service.api import protocols
from service.api.pipeline import body_limits
from service.api.protocols import MAX_HEAD_BYTES, HttpProtocol
from service.api.responses import BytesResponse
from tests.support.pipelines import pipeline_to
from tests.support.problems import MEMBERS
from tests.support.sockets import on_port

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    """Where the application is served."""
    async with on_port(app) as port:
        yield port


async def exchange(port: int, *sent: bytes) -> bytes:
    """Send, and return all that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def problem(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    found = orjson.loads(body)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head
    assert f"x-request-id: {found['request_id']}".encode() in head
    assert found.keys() == MEMBERS
    assert found["status"] == status


async def test_a_request_is_served(port: int) -> None:
    assert b"200 OK" in await exchange(port, REQUEST, b"Connection: close\r\n\r\n")


async def test_bytes_that_are_not_http_get_a_problem(port: int) -> None:
    problem(await exchange(port, b"hello\r\n\r\n"), 400)


CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("body", [b"zz\r\n", b"2\r\n{}\r\n-1\r\n", b"1" * 17 + b"\r\n"])
async def test_a_malformed_chunked_body_gets_a_problem(body: bytes) -> None:
    begun = asyncio.Event()

    async def read(request: Request) -> Response:
        begun.set()
        await request.body()
        return Response("read")

    async with (
        asyncio.timeout(10),
        on_port(pipeline_to(read)) as port,
    ):
        problem(await exchange(port, CHUNKED + body), 400)
        begun.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED)
        await begun.wait()
        writer.write(body)
        problem(await reader.read(), 400)
        writer.close()


async def test_a_body_that_goes_on_after_its_response_ends_in_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "REST_OF_BODY_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        writer.write(CHUNKED)
        assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
        while not reader.at_eof():
            writer.write(b"1\r\nx\r\n")
            await reader.read(10_000)
    writer.close()


async def test_trailer_fields_are_no_header_fields() -> None:
    async def names(request: Request) -> Response:
        await request.body()
        return Response(",".join(request.headers))

    async with on_port(pipeline_to(names)) as port:
        answer = await exchange(port, CHUNKED + b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    assert answer.endswith(b"host,transfer-encoding")


async def test_a_body_that_is_no_http_does_not_answer_the_request_before(port: int) -> None:
    assert b"HTTP/1.1 400" not in await exchange(port, REQUEST + b"\r\n" + CHUNKED + b"zz\r\n")


@pytest.mark.parametrize(
    "head", [REQUEST + b"X: ", b"GET /", REQUEST + b"X: y\r\n" * 100], ids=["value", "path", "fields"]
)
async def test_a_head_may_not_be_too_large(port: int, head: bytes) -> None:
    problem(await exchange(port, head, b"a" * MAX_HEAD_BYTES), 431)


async def test_a_head_almost_too_large_is_served(port: int) -> None:
    field = b"X: " + b"a" * (MAX_HEAD_BYTES - len(REQUEST) - 100) + b"\r\n"
    assert b"200 OK" in await exchange(port, REQUEST, field, b"Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    "head", [b"", REQUEST, REQUEST + b"\r\n" + REQUEST], ids=["nothing", "a part", "a second part"]
)
async def test_a_head_may_not_take_too_long(port: int, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEAD_TIMEOUT_SECONDS", 0.2)
    answer = await exchange(port, head)
    problem(answer[answer.rindex(b"HTTP/1.1") :], 408)


async def test_a_request_that_is_being_answered_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEAD_TIMEOUT_SECONDS", 0.05)
    answered = asyncio.Event()

    async def slow(_request: Request) -> Response:
        await answered.wait()
        return Response("late")

    asyncio.get_running_loop().call_later(0.3, answered.set)
    async with on_port(pipeline_to(slow)) as port:
        answer = await exchange(port, b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n", b"GET /slow HTTP/1.1\r\n")
    assert b"late" in answer
    problem(answer[answer.rindex(b"HTTP/1.1") :], 408)


@pytest.mark.parametrize("wanted", ["POST /auth/login", "POST /auth/register", "DELETE /tasks/1"])
async def test_a_client_that_disconnects_during_its_body_causes_no_error(
    port: int, app: FastAPI, logged: list[str], wanted: str
) -> None:
    token = app.state.services.sessions.tokens.issue(user_id=1, role="user", session_id=1).encode()
    head = b" HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 900\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wanted.encode() + head + b"Authorization: Bearer " + token + b"\r\n\r\n{")
    await writer.drain()
    writer.close()
    assert b"200 OK" in await exchange(port, REQUEST, b"Connection: close\r\n\r\n")
    assert not logged


async def test_a_client_that_does_not_read_its_responses_causes_no_error(logged: list[str]) -> None:
    async def large(_request: Request) -> Response:
        return Response(b"x" * 2_000_000)

    async def leave_unread() -> bytes:
        async with on_port(pipeline_to(large)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
            writer.write(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n" * 5)
            await reader.readexactly(100)
            writer.transport.abort()
            return await exchange(port, REQUEST, b"Connection: close\r\n\r\n")

    # On the loop that the service runs on: it raises where asyncio's own keeps silent.
    assert b"200 OK" in await asyncio.to_thread(uvloop.run, leave_unread())
    assert not logged


async def test_a_body_may_not_take_too_long(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "BODY_PART_TIMEOUT_SECONDS", 0.2)
    head = b"POST /auth/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    assert (await exchange(port, head, b"Connection: close\r\n\r\n{")).startswith(b"HTTP/1.1 408 ")


UPGRADE = b"POST /auth/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
LOGIN = b'{"username": "nobody", "password": "correct horse"}'


async def test_another_protocol_that_is_asked_for_is_ignored_and_the_body_is_read(port: int) -> None:
    head = UPGRADE + b"Upgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(LOGIN)
    last = REQUEST + b"Connection: close\r\n\r\n"
    for sent in ([head + LOGIN, last], [head, LOGIN, last]):
        answer = await exchange(port, *sent)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert answer.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 200 OK" in answer


class Slowly(HttpProtocol):
    """Hears what a client sends byte by byte, as long as it listens."""

    def data_received(self, data: bytes) -> None:
        for at in range(len(data)):
            if self.transport.is_reading():
                super().data_received(data[at : at + 1])


async def test_a_body_after_an_upgrade_sent_in_pieces_is_not_read_as_a_request(app: FastAPI) -> None:
    hidden = REQUEST + b"\r\n"
    head = UPGRADE + b"Upgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    async with on_port(app, protocol=Slowly) as port:
        answer = await exchange(port, head, hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"200 OK" not in answer


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"Content-Length: 2\r\n\r\n{}", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"".join(b"X-%d: x\r\n" % n for n in range(200)) + b"\r\n", 431),
    ],
    ids=["body", "chunked", "headers"],
)
async def test_a_handshake_that_cannot_be_read_is_answered_and_closed(app: FastAPI, more: bytes, status: int) -> None:
    async with on_port(app, sockets=True) as port:
        problem(await exchange(port, HANDSHAKE + more), status)


async def test_a_handshake_may_have_a_long_line(app: FastAPI) -> None:
    async with on_port(app, sockets=True) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE + b"Cookie: " + b"x" * 20_000 + b"\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
        writer.transport.abort()


@pytest.mark.parametrize("path", [b"/ws/", b"/tasks", b"/nothing"])
async def test_a_web_socket_elsewhere_is_not_found(app: FastAPI, path: bytes) -> None:
    async with on_port(app, sockets=True) as port:
        problem(await exchange(port, HANDSHAKE.replace(b"/ws", path) + b"\r\n"), 404)


async def test_a_request_cancelled_by_the_stop_returns_503() -> None:
    begun = asyncio.Event()

    async def slow(_request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"origin", b"https://a.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""}
    pipeline = pipeline_to(slow, cors={"allow_origins": ["*"]})
    request = asyncio.create_task(pipeline(scope, receive, send))
    await begun.wait()
    request.cancel()
    await asyncio.wait([request])
    assert sent[0]["status"] == 503
    assert (b"access-control-allow-origin", b"*") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"])["code"] == "unavailable"


async def test_a_line_break_in_a_header_never_reaches_the_client() -> None:
    async def split(_request: Request) -> Response:
        return BytesResponse(b"{}", 200, {"X-Name": "a\r\nX-Other: b"}, "application/json")

    async with on_port(pipeline_to(split)) as port:
        answer = await exchange(port, REQUEST + b"\r\n")
    assert answer == b""


async def test_a_client_that_leaves_before_its_responses_causes_no_error(logged: list[str]) -> None:
    async def slow(_request: Request) -> Response:
        await asyncio.sleep(0.05)  # as a statement takes; meanwhile the server learns that the client has left
        return BytesResponse(b"{}", 200, {}, "application/json")

    async def leave() -> bytes:
        async with asyncio.timeout(10), on_port(pipeline_to(slow)) as port:
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
                await asyncio.sleep(0.01)
                writer.transport.abort()
            await asyncio.sleep(0.3)
            return await exchange(port, REQUEST, b"Connection: close\r\n\r\n")

    # On the loop that the service runs on: it raises where asyncio's own keeps silent.
    assert b"200 OK" in await asyncio.to_thread(uvloop.run, leave())
    assert not [line for line in logged if line.startswith("ERROR")]
