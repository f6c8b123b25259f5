"""Many tasks in one request: all of them or none, in the order sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from loguru import logger

from service.api.pipeline import body_limits
from service.api.pipeline.body_limits import MAX_BODY_BYTES, MAX_LARGE_BODY_BYTES
from service.api.routes import tasks
from service.db import pool
from tests.support.factories import Factory
from tests.support.problems import problem

JSON = {"Content-Type": "application/json"}
MAX_BULK_BYTES = MAX_LARGE_BODY_BYTES["POST", "/tasks/bulk"]
WHOLE = {"title": "Prepare Report", "description": "Collect data", "status": "in_progress", "city": "Moscow"}


@pytest.fixture
def log_records() -> Iterator[list[Any]]:
    """What is logged at INFO or above, with what is bound to it."""
    lines: list[Any] = []
    sink = logger.add(lambda message: lines.append(message.record), level="INFO")
    yield lines
    logger.remove(sink)


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 60_000):
        yield content[start : start + 60_000]


async def test_tasks_come_back_in_the_order_sent_and_can_be_read(make: Factory) -> None:
    ada = await make.user()
    sent = [{"title": "b"}, WHOLE, {"title": "a", "status": "done"}]
    created = await ada.client.post("/tasks/bulk", json={"tasks": sent})
    assert created.status_code == 201
    assert not {"location", "etag"} & created.headers.keys()
    assert created.json().keys() == {"items"}
    items = created.json()["items"]
    for one, item in zip(sent, items, strict=True):
        assert {name: item[name] for name in one} == one
        assert (await ada.client.get(f"/tasks/{item['id']}")).json() == item
        assert (item["user_id"], item["version"]) == (ada.id, 1)
    assert [item["id"] for item in items] == sorted(item["id"] for item in items)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}], ids=["plain", "keyed"])
async def test_bulk_requests_wait_for_each_other_and_block_no_others(make: Factory, headers: dict[str, str]) -> None:
    ada, many = await make.user(), make.app.state.services.bulk
    async with AsyncExitStack() as stack:
        for _ in range(pool.BULK_CONNECTIONS):
            lent = await stack.enter_async_context(many.connection())
        assert await lent.fetchval("show statement_timeout") == "20s"
        created = asyncio.create_task(ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]}, headers=headers))
        assert (await ada.client.post("/tasks", json=WHOLE)).status_code == 201
        if headers:
            while not await make.sql.fetchval("select exists (select from idempotency_keys)"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            again = await ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]}, headers=headers)
            problem(again, 409)
        assert not created.done()
    assert (await created).status_code == 201


async def test_one_user_runs_one_bulk_request_at_a_time_and_others_do_not_wait(
    make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob, bulks = await make.user(), await make.user(), make.app.state.services.bulks
    with bulks.slot(ada.id):
        created = asyncio.create_task(ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]}))
        assert (await bob.client.post("/tasks/bulk", json={"tasks": [WHOLE]})).status_code == 201
        assert not created.done()
    assert (await created).status_code == 201
    monkeypatch.setattr(tasks, "BULK_SLOT_TIMEOUT_SECONDS", 0.05)
    with bulks.slot(ada.id):
        refused = await ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]})
    assert problem(refused, 503)["detail"].startswith("Too many bulk creations")
    assert refused.headers["retry-after"]


async def test_a_bulk_request_waits_for_a_limited_time(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, many = await make.user(), make.app.state.services.bulk
    monkeypatch.setattr(many, "acquire_seconds", 0.05)
    async with many.connection(), many.connection():
        refused = await ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]})
    problem(refused, 503)
    assert refused.headers["retry-after"]
    assert (await ada.client.get("/tasks")).json()["items"] == []


async def test_a_thousand_tasks_are_accepted_and_one_more_is_refused(make: Factory, log_records: list[Any]) -> None:
    ada = await make.user()
    tasks = [{"title": f"task {number}", "city": "Moscow"} for number in range(1000)]
    cursor = (await ada.client.get("/events")).json()["cursor"]
    created = await ada.client.post("/tasks/bulk", json={"tasks": tasks})
    assert [item["title"] for item in created.json()["items"]] == [task["title"] for task in tasks]
    ids = [item["id"] for item in created.json()["items"]]
    heard = (await ada.client.get("/events", params={"since": cursor, "limit": 1000})).json()["items"]
    assert [(event["type"], event["task_id"], event["actor_id"]) for event in heard] == [
        ("task.created", task, ada.id) for task in ids
    ]
    (line,) = log_records
    assert line["message"] == "tasks created"
    bound = {"tasks": 1000, "first_id": ids[0], "last_id": ids[-1], "actor_id": ada.id}
    assert line["extra"].items() >= bound.items()
    refused = await ada.client.post("/tasks/bulk", json={"tasks": [*tasks, {"title": "one more"}]})
    problem(refused, 422, pointers={"/tasks"})
    assert await make.sql.fetchval("select count(*) from tasks") == 1000


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"title": ""}, "/title"),
        ({"title": " "}, "/title"),
        ({}, "/title"),
        ({"title": "x" * 101}, "/title"),
        ({"title": "a\0b"}, "/title"),
        ({"title": "x", "status": "later"}, "/status"),
        ({"title": "x", "city": "x" * 101}, "/city"),
        ({"title": "x", "description": "x" * 10_001}, "/description"),
        ({"title": "x", "user_id": 1}, "/user_id"),
        ({"title": "x", "a/b~": 1}, "/a~1b~0"),
        (None, ""),
        ("x", ""),
        ([], ""),
    ],
    ids=str,
)
async def test_an_error_names_index_and_field_and_nothing_is_made(make: Factory, task: Any, field: str) -> None:
    ada = await make.user()
    refused = await ada.client.post("/tasks/bulk", json={"tasks": [{"title": "good"}, *[task] * 2, {"title": "good"}]})
    problem(refused, 422, pointers={f"/tasks/1{field}", f"/tasks/2{field}"})
    assert await make.sql.fetchval("select count(*) from tasks") == 0


async def test_a_body_with_a_flood_of_unknown_fields_gets_a_short_answer(make: Factory) -> None:
    ada = await make.user()
    task = {"title": "x", **{f"x{n}": 1 for n in range(50)}}
    refused = await ada.client.post("/tasks/bulk", json={"tasks": [task] * 3})
    (error,) = problem(refused, 422, pointers={"/tasks"})["errors"]
    assert "more than 100" in error["message"]
    refused = await ada.client.post("/tasks/bulk", json={"tasks": [task] * 2})
    assert len(problem(refused, 422)["errors"]) == 100


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("part", ["{}", "[]", "1", '""', '{"title":"x"}', "[" * 20])
async def test_a_flood_of_values_is_refused_before_it_is_read(make: Factory, part: str, whole: bool) -> None:
    ada = await make.user()
    content = f'{{"tasks":[{",".join([part] * 200_000)}]}}'.encode()
    problem(await ada.client.post("/tasks/bulk", content=content if whole else in_pieces(content), headers=JSON), 413)


async def test_far_too_many_tasks_cause_one_error(make: Factory) -> None:
    ada = await make.user()
    refused = await ada.client.post("/tasks/bulk", json={"tasks": [{}] * 20_000})
    (error,) = problem(refused, 422, pointers={"/tasks"})["errors"]
    assert "at most 1000 tasks" in error["message"]


async def test_texts_may_contain_many_json_characters(make: Factory) -> None:
    ada = await make.user()
    tasks = [{"title": "x", "description": '",[{\\' * 2000}] * 100
    created = await ada.client.post("/tasks/bulk", json={"tasks": tasks})
    assert created.status_code == 201
    assert created.json()["items"][99]["description"] == tasks[99]["description"]


@pytest.mark.parametrize("tasks", [[], None, {}, "x", 1, {"0": {"title": "x"}}], ids=str)
async def test_a_body_without_a_list_of_tasks_is_refused(make: Factory, tasks: Any) -> None:
    ada = await make.user()
    problem(await ada.client.post("/tasks/bulk", json={"tasks": tasks}), 422, pointers={"/tasks"})


async def test_a_value_that_only_the_database_refuses_creates_no_task(make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute("alter table tasks add constraint tasks_own_check check (title <> 'refused') not valid")
    try:
        sent = {"tasks": [{"title": "good"}, {"title": "refused"}]}
        problem(await ada.client.post("/tasks/bulk", json=sent), 422)
        assert await make.sql.fetchval("select count(*) from tasks") == 0
    finally:
        await make.sql.execute("alter table tasks drop constraint tasks_own_check")


# How large a body may be


def padded(size: int) -> bytes:
    """Return a good body of this size."""
    return json.dumps({"tasks": [{"title": "x"}]}).encode().ljust(size)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_may_have_sixteen_megabytes(make: Factory, whole: bool) -> None:
    ada = await make.user()
    for size, status in ((MAX_BODY_BYTES + 1, 201), (MAX_BULK_BYTES, 201), (MAX_BULK_BYTES + 1, 413)):
        content = padded(size)
        sent = await ada.client.post("/tasks/bulk", content=content if whole else in_pieces(content), headers=JSON)
        assert ("Content-Length" in sent.request.headers) == whole
        assert sent.status_code == status, sent.text
    problem(sent, 413)


async def test_two_large_bodies_of_one_user_are_read_at_once_and_others_do_not_wait(
    make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await make.user(), await make.user()
    begun, whole = [asyncio.Event() for _ in range(3)], asyncio.Event()

    async def body(number: int) -> AsyncIterator[bytes]:
        begun[number].set()
        yield padded(100)
        await whole.wait()
        yield b" "

    def send(number: int) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(ada.client.post("/tasks/bulk", content=body(number), headers=JSON))

    sent = [send(0), send(1)]
    await begun[0].wait()
    await begun[1].wait()
    third = send(2)
    assert (await ada.client.post("/tasks/bulk", json={"tasks": [WHOLE]})).status_code == 201
    large = padded(MAX_BODY_BYTES + 1)
    assert (await bob.client.post("/tasks/bulk", content=large, headers=JSON)).status_code == 201
    assert not begun[2].is_set()
    monkeypatch.setattr(body_limits, "SLOT_TIMEOUT_SECONDS", 0.05)
    refused = await ada.client.post("/tasks/bulk", content=large, headers=JSON)
    assert problem(refused, 503)["detail"].startswith("Too many large bodies")
    assert refused.headers["retry-after"]
    whole.set()
    assert [(await one).status_code for one in (*sent, third)] == [201, 201, 201]


async def test_a_large_body_sent_with_a_read_only_key_is_not_read(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    key = (await ada.client.post("/auth/keys", json={"name": "x", "read_only": True})).json()["key"]
    pieces: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        pieces.append(1)
        yield padded(MAX_BODY_BYTES + 1)

    headers = JSON | {"Authorization": f"Bearer {key}"}
    problem(await client.post("/tasks/bulk", content=body(), headers=headers), 403)
    assert not pieces


async def test_a_large_body_may_not_take_too_long_as_a_whole(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await make.user()

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    monkeypatch.setattr(body_limits, "LARGE_BODY_TIMEOUT_SECONDS", 0.2)
    async with asyncio.timeout(10):
        problem(await ada.client.post("/tasks/bulk", content=trickle(), headers=JSON), 408)
    assert (await ada.client.post("/tasks/bulk", content=padded(MAX_BODY_BYTES + 1), headers=JSON)).status_code == 201


async def test_on_other_routes_it_may_have_one(make: Factory) -> None:
    ada = await make.user()
    for who, method, path in [
        (ada.client, "POST", "/tasks"),
        (ada.client, "PUT", f"/tasks/{await make.task(ada)}"),
    ]:
        for content in (padded(MAX_BODY_BYTES + 1), in_pieces(padded(MAX_BODY_BYTES + 1))):
            problem(await who.request(method, path, content=content, headers=JSON), 413)


@pytest.mark.parametrize("authorization", [{}, {"Authorization": "Bearer x"}], ids=["none", "bad"])
async def test_an_unauthenticated_request_is_refused_before_its_body_is_read(
    client: httpx.AsyncClient, authorization: dict[str, str]
) -> None:
    pieces: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        pieces.append(1)
        yield padded(MAX_BODY_BYTES + 1)

    refused = await client.post("/tasks/bulk", content=body(), headers=JSON | authorization)
    assert problem(refused, 401)["code"] == "unauthorized"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert not pieces
