"""Slots for large responses: who gets one, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from service.api.authentication import IDENTITY
from service.api.pipeline import backpressure
from service.api.pipeline.backpressure import (
    LARGE_RESPONSE_BYTES,
    MAX_LARGE_RESPONSES,
    MAX_LARGE_RESPONSES_PER_USER,
    PIECE_BYTES,
    Backpressure,
)
from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer

BODY = bytes(range(256)) * 1025
ADA, BOB = Viewer(id=1, is_admin=False), Viewer(id=2, is_admin=False)


class Served:
    """An application whose clients read nothing of its responses until `taken` is set."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = bodies or (BODY,)
        self.sent: list[Message] = []
        self.taken = asyncio.Event()
        self._answers = Backpressure()

    async def ask(self, identity: Any, *, method: str = "GET") -> list[Message]:
        """Send a request and return what was answered."""
        answered: list[Message] = []

        async def send(message: Message) -> None:
            answered.append(message)
            self.sent.append(message)
            if message.get("body"):
                await self.taken.wait()

        scope = {"type": "http", "method": method, "path": "/", "headers": [], IDENTITY: identity}
        await self._app(self._answers.bounded(scope, receive, send))
        return answered

    async def _app(self, send: Send) -> None:
        length = str(sum(map(len, self.bodies))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for body in self.bodies[:-1]:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": self.bodies[-1]})

    @property
    def begun(self) -> int:
        """How many answers have begun."""
        return len([message for message in self.sent if message["type"] == "http.response.start"])


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def turned() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_few_of_each_reader_are_sent_at_once_and_others_wait() -> None:
    served = Served()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asked = [group.create_task(served.ask(ADA)) for _ in range(MAX_LARGE_RESPONSES_PER_USER + 2)]
        await turned()
        assert served.begun == MAX_LARGE_RESPONSES_PER_USER
        asked.append(group.create_task(served.ask(BOB)))
        await turned()
        assert served.begun == MAX_LARGE_RESPONSES_PER_USER + 1
        served.taken.set()
    for one in asked:
        start, *pieces = one.result()
        assert start["status"] == 200
        assert b"".join(piece["body"] for piece in pieces) == BODY
        assert max(len(piece["body"]) for piece in pieces) == PIECE_BYTES
        assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


async def test_a_limited_number_of_responses_is_sent_at_once() -> None:
    served = Served()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for user_id in range(MAX_LARGE_RESPONSES + 5):
            group.create_task(served.ask(Viewer(id=user_id, is_admin=False)))
        await turned()
        assert served.begun == MAX_LARGE_RESPONSES
        served.taken.set()


async def test_a_request_that_waited_too_long_gets_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "SLOT_TIMEOUT_SECONDS", 0.05)
    served = Served()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(MAX_LARGE_RESPONSES_PER_USER):
            group.create_task(served.ask(ADA))
        await turned()
        refused = group.create_task(served.ask(ADA))
        while served.begun == MAX_LARGE_RESPONSES_PER_USER:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        served.taken.set()
    start, body = refused.result()
    assert start["status"] == 503
    assert b"retry-after" in dict(start["headers"])
    assert b'"code":"unavailable"' in body["body"]


async def test_an_unread_response_is_aborted_and_its_slot_passes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backpressure, "RESPONSE_TIMEOUT_SECONDS", 0.05)
    served = Served()
    async with asyncio.timeout(10):
        asked = [asyncio.create_task(served.ask(ADA)) for _ in range(MAX_LARGE_RESPONSES_PER_USER + 1)]
        await asyncio.wait(asked)
    assert served.begun == len(asked)
    assert [type(one.exception()) for one in asked] == [ClientDisconnect] * len(asked)


@pytest.mark.parametrize(
    ("identity", "method", "bodies"),
    [
        (ADA, "GET", [BODY[:LARGE_RESPONSE_BYTES]]),
        (ADA, "POST", [BODY]),  # it is done, and the answer says so
        (None, "GET", [BODY]),
        (UnauthorizedError("x"), "GET", [BODY]),
        (ADA, "GET", [BODY[:PIECE_BYTES]] * 10),  # a file
        (ADA, "GET", [b""]),
    ],
)
async def test_other_responses_need_no_slot(identity: Any, method: str, bodies: list[bytes]) -> None:
    served = Served(*bodies)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asked = [
            group.create_task(served.ask(identity, method=method)) for _ in range(MAX_LARGE_RESPONSES_PER_USER + 1)
        ]
        await turned()
        assert served.begun == len(asked)
        served.taken.set()
    assert {b"".join(message.get("body", b"") for message in one.result()) for one in asked} == {b"".join(bodies)}


async def test_a_streamed_response_has_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "RESPONSE_TIMEOUT_SECONDS", 0)
    served = Served(BODY[: 2 * PIECE_BYTES], b"")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(served.ask(ADA))
        await turned()
        served.taken.set()
    assert [message.get("body") for message in served.sent] == [None, *served.bodies]


async def test_a_small_answer_waits_for_its_client_in_the_servers_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "RESPONSE_TIMEOUT_SECONDS", 0)
    served = Served(BODY[:PIECE_BYTES])
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(served.ask(ADA))
        await turned()
        served.taken.set()
    assert [message.get("body") for message in served.sent] == [None, *served.bodies]
