"""Idempotency-Key: a repeated request gets the stored response and is not run again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from service.db import cleanup
from service.db.pool import Database
from tests.support.factories import Factory, User
from tests.support.problems import problem

POINTER = {"/header/idempotency-key"}
BODIES: dict[str, Any] = {
    "/tasks": {"title": "x", "city": "Oslo"},
    "/tasks/bulk": {"tasks": [{"title": "x"}, {"title": "y"}]},
}
every = pytest.mark.parametrize("path", BODIES)


async def send(user: User, path: str, key: str = "k", body: Any = None) -> httpx.Response:
    return await user.client.post(path, json=body or BODIES[path], headers={"Idempotency-Key": key})


async def count(make: Factory) -> int:
    return int(await make.sql.fetchval("select count(*) from tasks"))


def kept(answer: httpx.Response) -> Any:
    names = ("location", "etag", "cache-control", "content-type", "content-length")
    return answer.status_code, answer.content, [answer.headers.get(name) for name in names]


@every
async def test_a_repeated_request_returns_the_first_response(make: Factory, path: str) -> None:
    ada = await make.user()
    first = await send(ada, path)
    made = await count(make)
    await make.sql.execute("update tasks set title = 'changed since'")
    second, third = await send(ada, path), await send(ada, path)
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    assert kept(first) == kept(second) == kept(third)
    assert second.headers["Idempotency-Replayed"] == third.headers["Idempotency-Replayed"] == "true"
    assert await count(make) == made == len(BODIES[path].get("tasks", [1]))
    assert ("Location" in second.headers) == ("ETag" in second.headers) == (path == "/tasks")
    assert second.headers["X-Request-ID"] != first.headers["X-Request-ID"]


@every
async def test_task_and_answer_are_kept_together_or_not_at_all(make: Factory, path: str) -> None:
    ada = await make.user()
    await make.sql.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise check_violation; end $$;"
        " create constraint trigger tasks_refuse after insert on tasks deferrable initially deferred"
        " for each row execute function refuse()"
    )
    try:
        assert (await send(ada, path)).status_code == 422  # by the commit
        assert await count(make) == 0
    finally:
        await make.sql.execute("drop function refuse cascade")
    again = await send(ada, path)
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, False)
    assert await count(make) == len(BODIES[path].get("tasks", [1]))


@every
async def test_the_answer_with_a_key_is_as_the_one_without(make: Factory, path: str) -> None:
    ada = await make.user()
    keyed, plain = await send(ada, path), await ada.client.post(path, json=BODIES[path])
    assert keyed.headers.keys() == plain.headers.keys()
    assert keyed.json().keys() == plain.json().keys()
    assert await count(make) == 2 * len(BODIES[path].get("tasks", [1]))


@every
async def test_a_key_with_another_body_is_refused(make: Factory, path: str) -> None:
    ada = await make.user()
    await send(ada, path)
    made = await count(make)
    other = {"title": "y"} if path == "/tasks" else {"tasks": [{"title": "y"}, {"title": "x"}]}
    problem(await send(ada, path, body=other), 422, pointers=POINTER)
    assert await count(make) == made


async def test_order_of_fields_and_spaces_do_not_make_another_body(make: Factory) -> None:
    ada = await make.user()
    bodies = [b'{"title":"x","city":"Oslo"}', b'{ "city" : "\\u004fslo",\n "title": "x" }']
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first, second = [await ada.client.post("/tasks", content=body, headers=headers) for body in bodies]
    assert kept(first) == kept(second)
    assert await count(make) == 1


async def test_a_key_is_of_one_user_and_one_route(make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    answers = [await send(ada, "/tasks"), await send(bob, "/tasks"), await send(ada, "/tasks/bulk")]
    answers += [await send(ada, "/tasks", "K"), await send(ada, "/tasks", "other")]
    assert [answer.status_code for answer in answers] == [201] * 5
    assert not [answer for answer in answers if "Idempotency-Replayed" in answer.headers]
    assert await count(make) == 6


@every
async def test_one_of_twenty_concurrent_requests_is_run(make: Factory, path: str) -> None:
    ada = await make.user()
    for key in "abc":
        before = await count(make)
        answers = await asyncio.gather(*(send(ada, path, key) for _ in range(20)))
        made = [answer for answer in answers if answer.status_code == 201]
        first = [answer for answer in made if "Idempotency-Replayed" not in answer.headers]
        assert len(first) == 1
        assert {answer.content for answer in made} == {first[0].content}
        for answer in answers:
            if answer not in made:
                assert problem(answer, 409)["code"] == "conflict"
        assert await count(make) - before == len(BODIES[path].get("tasks", [1]))
        assert kept(await send(ada, path, key)) == kept(first[0])


@every
async def test_a_task_that_the_database_refuses_leaves_the_key_unused(make: Factory, path: str) -> None:
    ada = await make.user()
    await make.sql.execute("alter table tasks add constraint tasks_own_check check (title <> 'x') not valid")
    try:
        problem(await send(ada, path), 422)
    finally:
        await make.sql.execute("alter table tasks drop constraint tasks_own_check")
    assert await count(make) == 0
    assert await make.sql.fetchval("select count(*) from idempotency_keys") == 0
    again = await send(ada, path)
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, False)


async def test_a_response_that_cannot_be_stored_rolls_back_its_task(make: Factory) -> None:
    """The insert and the answer are one transaction."""
    ada = await make.user()
    await make.sql.execute("alter table idempotency_keys add constraint own_check check (status is null) not valid")
    try:
        problem(await send(ada, "/tasks"), 422)
    finally:
        await make.sql.execute("alter table idempotency_keys drop constraint own_check")
    assert await count(make) == 0
    assert await make.sql.fetchval("select count(*) from task_events") == 0
    assert (await send(ada, "/tasks")).status_code == 201


async def test_a_refused_body_leaves_the_key_unused(make: Factory) -> None:
    ada = await make.user()
    problem(await send(ada, "/tasks", body={"title": ""}), 422, pointers={"/title"})
    assert (await send(ada, "/tasks")).status_code == 201


async def test_a_key_can_be_reused_after_a_day(make: Factory) -> None:
    ada = await make.user()
    await send(ada, "/tasks")
    await make.sql.execute("update idempotency_keys set claimed_at = now() - interval '24 hours'")
    again = await send(ada, "/tasks", body={"title": "another"})
    assert (again.status_code, again.json()["title"]) == (201, "another")
    assert await count(make) == 2


async def test_keys_a_day_old_are_deleted(make: Factory, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await make.user()
    for key in ("old", "new"):
        await send(ada, "/tasks", key)
    await make.sql.execute("update idempotency_keys set claimed_at = now() - interval '24 hours' where key = 'old'")
    monkeypatch.setattr(cleanup, "PAUSE_SECONDS", 0.01)
    running = asyncio.create_task(cleanup.run(database, days=90))
    async with asyncio.timeout(10):
        while await make.sql.fetchval("select array_agg(key) from idempotency_keys") != ["new"]:
            assert not running.done()
    running.cancel()


@pytest.mark.parametrize("key", ["!", "~" * 255, '"8e03978e-40d5"', "';drop--", "%00", "\\"])
async def test_a_key_is_any_visible_ascii(make: Factory, key: str) -> None:
    ada = await make.user()
    answers = [await send(ada, "/tasks", key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert await count(make) == 1


@pytest.mark.parametrize(
    "key", [b"", b" ", b"a b", b"x" * 256, b"x" * 60_000, b"a\tb", b"\xc3\xa9", b"\xff", b"a\x7f", b"k, k"], ids=repr
)
@every
async def test_an_invalid_idempotency_key_is_refused(make: Factory, path: str, key: bytes) -> None:
    ada = await make.user()
    refused = await ada.client.post(path, json=BODIES[path], headers={b"Idempotency-Key": key})
    problem(refused, 422, pointers=POINTER)
    assert await count(make) == 0


@every
async def test_a_key_that_stands_there_twice_is_refused(make: Factory, path: str) -> None:
    ada = await make.user()
    lines = [("Idempotency-Key", "k"), ("Idempotency-Key", "k")]
    problem(await ada.client.post(path, json=BODIES[path], headers=lines), 422, pointers=POINTER)
    assert await count(make) == 0


async def test_subscribers_get_a_task_created_with_a_key(make: Factory) -> None:
    ada = await make.user()
    cursor = (await ada.client.get("/events")).json()["cursor"]
    task = (await send(ada, "/tasks")).json()
    await send(ada, "/tasks")
    (event,) = (await ada.client.get("/events", params={"since": cursor})).json()["items"]
    assert (event["type"], event["task_id"], event["actor_id"]) == ("task.created", task["id"], ada.id)
