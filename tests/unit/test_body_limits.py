"""Slots for large request bodies: who gets one, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.api.authentication import IDENTITY
from service.api.pipeline import backpressure
from service.api.pipeline.backpressure import PIECE_BYTES, Backpressure
from service.api.pipeline.body_limits import (
    MAX_BODY_BYTES,
    MAX_LARGE_BODIES,
    MAX_LARGE_BODIES_PER_USER,
    MAX_LARGE_BODY_BYTES,
    BodyLimits,
)
from service.core.viewer import Viewer

MAX_BULK_BYTES = MAX_LARGE_BODY_BYTES["POST", "/tasks/bulk"]
ANSWER = bytes(range(256)) * 1000


class Served:
    """An application whose clients read nothing of its responses until `taken` is set."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.answers: dict[asyncio.Task[Any] | None, list[bytes]] = {}
        self.taken = asyncio.Event()
        self._body_limits, self._backpressure = BodyLimits(max_attachment_bytes=0), Backpressure()

    async def ask(self, user_id: int, *headers: tuple[bytes, bytes]) -> bytes:
        """Send a request and return its answer's body."""
        viewer = Viewer(id=user_id, is_admin=False)
        scope = {"type": "http", "method": "POST", "path": "/tasks/bulk", "headers": headers, IDENTITY: viewer}
        receive, slot = self._body_limits.bound(scope, self._receive)
        async with slot or nullcontext():
            self.begun.append(user_id)
            await receive()
            send = self._backpressure.bounded(scope, receive, self._send)
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": ANSWER})
        return b"".join(self.answers[asyncio.current_task()])

    async def _receive(self) -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.answers.setdefault(asyncio.current_task(), []).append(message["body"])
            await self.taken.wait()


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", str(size).encode()


@pytest.mark.parametrize(
    "header",
    [
        length(MAX_BODY_BYTES + 1),
        length(MAX_BULK_BYTES),
        (b"content-length", b"%015d" % MAX_BULK_BYTES),
        (b"content-length", b"%05000d" % MAX_BULK_BYTES),
        (b"transfer-encoding", b"chunked"),
    ],
)
async def test_a_slot_is_held_until_the_client_reads_the_response(header: tuple[bytes, bytes]) -> None:
    served = Served()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asked = [group.create_task(served.ask(user, header)) for user in (1, 1, 1, 2, 2, 3, 3, 4)]
        while len(served.answers) < MAX_LARGE_BODIES:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert served.begun == [1, 1, 2, 2, 3, 3]
        assert max(map(served.begun.count, served.begun)) == MAX_LARGE_BODIES_PER_USER
        served.taken.set()
    assert sorted(served.begun[MAX_LARGE_BODIES:]) == [1, 4]
    assert [one.result() for one in asked] == [ANSWER] * len(asked)
    assert max(len(piece) for pieces in served.answers.values() for piece in pieces) == PIECE_BYTES


async def test_a_slot_is_not_held_longer_than_the_response_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "RESPONSE_TIMEOUT_SECONDS", 0.05)
    served = Served()
    async with asyncio.timeout(10):
        asked = [
            asyncio.create_task(served.ask(1, length(MAX_BODY_BYTES + 1))) for _ in range(MAX_LARGE_BODIES_PER_USER + 1)
        ]
        await asyncio.wait(asked)
    assert len(served.begun) == len(asked)
    assert [type(one.exception()) for one in asked] == [ClientDisconnect] * len(asked)


OTHERS = ["0", "2", "002", str(MAX_BODY_BYTES)]


@pytest.mark.parametrize("headers", [[], *([(b"content-length", one.encode())] for one in OTHERS)])
async def test_other_requests_need_no_slot(headers: list[tuple[bytes, bytes]]) -> None:
    served = Served()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for sent in [[length(MAX_BODY_BYTES + 1)]] * MAX_LARGE_BODIES_PER_USER + [headers]:
            group.create_task(served.ask(1, *sent))
        while len(served.begun) <= MAX_LARGE_BODIES_PER_USER:  # noqa: ASYNC110
            await asyncio.sleep(0)
        served.taken.set()


async def test_a_body_that_is_announced_as_too_large_is_refused_at_once() -> None:
    with pytest.raises(HTTPException) as refused:
        await Served().ask(1, length(MAX_BULK_BYTES + 1))
    assert refused.value.status_code == 413
