"""`GET /events`: pages for who asks again and again, and Server-Sent Events."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from service.core.pagination import Cursors
from service.events import subscriber
from service.events.log import EventLog
from service.events.position import Position, Snapshot
from tests.realtime.conftest import ORIGIN
from tests.realtime.test_socket import ticket, token_until, without_cursor
from tests.support.factories import Factory, User
from tests.support.problems import problem
from tests.support.subscribers import Stream, streaming


async def page(user: User, **query: Any) -> dict[str, Any]:
    answer = await user.client.get("/events", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert list(body) == ["items", "cursor", "reset"]
    return body


async def ended(stream: Stream) -> None:
    """Hold that nothing follows, but for comments, and then the end."""
    while one := await stream.next():
        assert one.keys() == {"comment"}


async def test_without_since_a_page_is_the_present_position(make: Factory) -> None:
    ada = await make.user()
    await make.task(ada)
    here = await page(ada)
    assert (here["items"], here["reset"]) == ([], False)
    assert (await page(ada, since=here["cursor"]))["items"] == []
    task = await make.task(ada)
    assert [one["task_id"] for one in (await page(ada, since=here["cursor"]))["items"]] == [task]


async def test_pages_are_limited_and_continue_without_loss_or_repetition(make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    cursor = start = (await page(ada))["cursor"]
    tasks = [await make.task(who) for who in (ada, bob) * 5][::2]
    for limit in (1, 2, 4, 5, 1000):
        cursor, found = start, []
        while items := (got := await page(ada, since=cursor, limit=limit))["items"]:
            assert len(items) <= limit
            assert not got["reset"]
            cursor = got["cursor"]
            found += items
        assert [one["task_id"] for one in found] == tasks
        for number, one in enumerate(found):
            rest = (await page(ada, since=one["cursor"]))["items"]
            assert [without_cursor(more) for more in rest] == [without_cursor(more) for more in found[number + 1 :]]


@pytest.mark.parametrize("limit", ["0", "1001", "x", "1.5", "-1"])
async def test_an_invalid_limit_is_refused(make: Factory, limit: str) -> None:
    ada = await make.user()
    problem(await ada.client.get("/events", params={"limit": limit}), 422, pointers={"/query/limit"})


@pytest.mark.parametrize("kind", ["garbage", "empty", "foreign", "forged", "another history's", "expired", "lost"])
async def test_an_unusable_cursor_is_answered_with_reset(make: Factory, live_app: FastAPI, kind: str) -> None:
    ada = await make.user()
    await make.task(ada)
    good = (await page(ada))["cursor"]
    event_log = live_app.state.services.event_log
    here = event_log.position(good)
    before = Snapshot(here.seen.xmin, here.seen.xmax, here.seen.running, here.seen.newest_id - 1)
    lost = Snapshot(here.seen.xmin, here.seen.xmax, here.seen.running, here.seen.newest_id + 1000)
    if kind == "expired":
        await make.sql.execute("update task_event_horizon set expired_id = $1", here.seen.newest_id)
    since = {
        "garbage": "garbage",
        "empty": "",
        "foreign": EventLog(Cursors(("x" * 32,))).cursor(here),
        "forged": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "another history's": event_log.cursor(Position("0" * 12, here.seen)),
        "expired": event_log.cursor(Position(here.epoch, before)),
        "lost": event_log.cursor(Position(here.epoch, lost)),
    }[kind]
    reset = await page(ada, since=since)
    assert (reset["items"], reset["reset"]) == ([], True)
    task = await make.task(ada)
    got = await page(ada, since=reset["cursor"])
    assert ([one["task_id"] for one in got["items"]], got["reset"]) == ([task], False)


async def test_only_authenticated_users_may_read_events(make: Factory, address: str) -> None:
    ada = await make.user()
    issued = await ticket(address, ada)
    stranger = await make.user()
    del stranger.client.headers["Authorization"]
    problem(await stranger.client.get("/events"), 401)
    problem(await stranger.client.get("/events", params={"ticket": "garbage"}), 401)
    assert (await stranger.client.get("/events", params={"ticket": issued})).status_code == 200
    problem(await stranger.client.get("/events", params={"ticket": issued}), 401)
    problem(await ada.client.get("/events", headers={"Origin": "https://foe.example"}), 403)
    assert (await ada.client.get("/events", headers={"Origin": ORIGIN})).status_code == 200
    await make.sql.execute("delete from users where id = $1", ada.id)
    async with asyncio.timeout(5):  # the process hears of it in a moment
        while (await ada.client.get("/events")).status_code == 200:
            pass
    problem(await ada.client.get("/events"), 401)
    problem(await ada.client.post("/auth/ticket"), 401)


async def test_a_stream_begins_with_ready_and_tells_each_event_with_its_cursor(address: str, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    async with streaming(address, ada.token) as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.response.headers["Cache-Control"] == "no-store"
        ready = await stream.next()
        assert ready
        assert ready["event"] == "ready"
        assert orjson.loads(ready["data"]) == {"type": "ready", "cursor": ready["id"]}
        await make.task(bob)
        tasks = [await make.task(ada, description="two\nlines\r\n") for _ in range(2)]
        told = [await stream.next() for _ in tasks]
    for task, one in zip(tasks, told, strict=True):
        assert one
        assert one.keys() == {"id", "data"}
        event = orjson.loads(one["data"])
        assert (event["task_id"], event["cursor"], event["type"]) == (task, one["id"], "task.created")
    (rest,) = (await page(ada, since=told[0]["id"] if told[0] else ""))["items"]
    assert rest["task_id"] == tasks[1]
    assert [one["task_id"] for one in (await page(ada, since=ready["id"]))["items"]] == tasks


async def test_the_last_event_id_goes_before_since(address: str, make: Factory) -> None:
    ada = await make.user()
    early = (await page(ada))["cursor"]
    tasks = [await make.task(ada)]
    late = (await page(ada))["cursor"]
    tasks.append(await make.task(ada))
    for parameters, missed in (({"since": early}, tasks), ({"since": early, "last_event_id": late}, tasks[1:])):
        async with streaming(address, ada.token, **parameters) as stream:
            ready = await stream.next()
            assert ready
            assert ready["event"] == "ready"
            for task in missed:
                one = await stream.next()
                assert one
                assert orjson.loads(one["data"])["task_id"] == task


async def test_an_unusable_cursor_is_answered_with_reset_in_the_stream(address: str, make: Factory) -> None:
    ada = await make.user()
    async with streaming(address, ada.token, last_event_id="garbage") as stream:
        reset = await stream.next()
        assert reset
        assert reset["event"] == "reset"
        assert orjson.loads(reset["data"]) == {"type": "reset", "cursor": reset["id"]}
        task = await make.task(ada)
        one = await stream.next()
        assert one
        assert orjson.loads(one["data"])["task_id"] == task


async def test_a_quiet_stream_sends_keep_alive_comments(
    address: str, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "KEEPALIVE_SECONDS", 0.05)
    async with streaming(address, (await make.user()).token) as stream:
        assert (await stream.next() or {}).get("event") == "ready"
        for _ in range(2):
            assert (await stream.next() or {}).keys() == {"comment"}


async def test_a_stream_ends_with_its_token(address: str, make: Factory) -> None:
    ada = await make.user()
    async with streaming(address, token_until(ada, time.time() + 2)) as stream:
        assert (await stream.next() or {}).get("event") == "ready"
        await ended(stream)


async def test_a_stream_opened_by_ticket_sends_events_and_ends_with_the_tickets_token(
    address: str, make: Factory
) -> None:
    ada = await make.user()
    issued = await ticket(address, ada)
    await make.sql.execute("update tickets set access_expires_at = now() + interval '2 s' where user_id = $1", ada.id)
    async with streaming(address, ticket=issued) as stream:
        assert (await stream.next() or {}).get("event") == "ready"
        task = await make.task(ada)
        one = await stream.next()
        assert one
        assert orjson.loads(one["data"])["task_id"] == task
        await ended(stream)
    async with streaming(address, ticket=issued) as stream:
        assert stream.response.status_code == 401


async def test_a_stream_ends_with_the_role_or_the_account(address: str, make: Factory) -> None:
    for change in ("update users set role = 'admin' where id = $1", "delete from users where id = $1"):
        ada = await make.user()
        async with streaming(address, ada.token) as stream:
            assert (await stream.next() or {}).get("event") == "ready"
            await make.sql.execute(change, ada.id)
            await ended(stream)


async def test_a_disconnected_stream_is_removed(address: str, make: Factory, live_app: FastAPI) -> None:
    ada, listeners = await make.user(), live_app.state.services.hub.subscribers
    async with streaming(address, ada.token) as stream:
        await stream.next()
        assert ada.id in {one.viewer.id for one in listeners}
    async with asyncio.timeout(20):
        while ada.id in {one.viewer.id for one in listeners}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
