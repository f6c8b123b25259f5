"""Large answers, of the whole application."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from service.api.pipeline import backpressure, request_pipeline
from tests.support.factories import Factory
from tests.support.problems import problem


async def test_a_few_large_responses_of_one_reader_are_sent_at_once(
    make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpressure, "LARGE_RESPONSE_BYTES", 10)
    monkeypatch.setattr(request_pipeline, "PIECE_BYTES", 10)
    monkeypatch.setattr(backpressure, "SLOT_TIMEOUT_SECONDS", 0.05)
    ada = await make.user()
    begun, taken = [], asyncio.Event()
    headers = [(b"authorization", ada.client.headers["authorization"].encode())]
    scope = {"type": "http", "method": "GET", "path": "/tasks", "query_string": b"", "headers": headers}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            begun.append(message["status"])
            await taken.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(backpressure.MAX_LARGE_RESPONSES_PER_USER):
            group.create_task(make.app({**scope}, receive, send))
        while len(begun) < backpressure.MAX_LARGE_RESPONSES_PER_USER:  # noqa: ASYNC110
            await asyncio.sleep(0)
        refused = problem(await ada.client.get("/tasks"), 503)
        taken.set()
    assert refused["detail"].startswith("Too many large answers")
    assert begun == [200] * backpressure.MAX_LARGE_RESPONSES_PER_USER
    assert (await ada.client.get("/tasks")).status_code == 200
