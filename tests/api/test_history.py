"""A task's history: who changed what, page by page, and who may know."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.tasks import history
from tests.support.factories import Factory, User
from tests.support.problems import problem


async def walk(user: User, path: str, *, limit: int) -> list[list[dict[str, Any]]]:
    """Return the items of all pages; check that `Link` has the cursor of each."""
    pages, answer = [], await user.client.get(path, params={"limit": limit})
    while True:
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page.keys() == {"items", "next_cursor"}
        pages.append(page["items"])
        assert len(pages) < 20
        link = answer.headers.get("Link")
        assert (link is None) == (page["next_cursor"] is None)
        if link is None:
            return pages
        assert page["next_cursor"] in link
        answer = await user.client.get(link[1:].partition(">")[0])


async def test_a_history_shows_the_actor_and_the_old_and_new_values(make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    path = (await ada.client.post("/tasks", json={"title": "x"})).headers["Location"]
    await root.client.patch(path, json={"status": "done", "description": "by root"})
    last = (await ada.client.get(path)).json()
    await ada.client.delete(path)
    for viewer in (ada, root):
        ((deleted, updated, created),) = await walk(viewer, f"{path}/history", limit=20)
        assert [one["type"] for one in (deleted, updated, created)] == ["task.deleted", "task.updated", "task.created"]
        assert [one["actor_id"] for one in (deleted, updated, created)] == [ada.id, root.id, ada.id]
        assert updated["changes"] == {"status": ["todo", "done"], "description": [None, "by root"]}
        assert "changes" not in deleted.keys() | created.keys()
        assert updated["task"]["version"] == last["version"] == 2
        assert deleted["task"]["version"] == 3
        assert updated["task"]["title"] == last["title"]
        names = {"id", "type", "task_id", "user_id", "actor_id", "at", "task"}
        assert deleted.keys() == names
        assert updated.keys() == names | {"changes"}
        assert deleted["at"] > updated["at"] > created["at"]


async def test_a_history_has_the_events_that_subscribers_get(make: Factory) -> None:
    ada = await make.user()
    cursor = (await ada.client.get("/events")).json()["cursor"]
    path = (await ada.client.post("/tasks", json={"title": "x"})).headers["Location"]
    await ada.client.patch(path, json={"title": "y"})
    heard = (await ada.client.get("/events", params={"since": cursor})).json()["items"]
    (events,) = await walk(ada, f"{path}/history", limit=20)
    assert [{**event, "cursor": ""} for event in events[::-1]] == [{**event, "cursor": ""} for event in heard]


async def test_a_page_ends_where_its_events_are_large(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await make.user()
    task = await make.task(ada)
    for number in range(3):
        await make.sql.execute("update tasks set description = repeat('x', 9990 + $1::int)", number)
    (whole,) = await walk(ada, f"/tasks/{task}/history", limit=100)
    monkeypatch.setattr(history, "PAGE_BYTES", 25_000)
    pages = await walk(ada, f"/tasks/{task}/history", limit=100)
    assert [len(page) for page in pages] == [1, 1, 2]
    assert [event for page in pages for event in page] == whole


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_are_whole_and_in_order_while_more_happens(make: Factory, limit: int) -> None:
    ada = await make.user()
    task = await make.task(ada)
    for number in range(6):
        await make.sql.execute("update tasks set title = $1", f"title {number}")
    pages = await walk(ada, f"/tasks/{task}/history", limit=limit)
    assert [len(page) for page in pages] == [limit] * (7 // limit) + [7 % limit] * (7 % limit > 0)
    seen = [event["id"] for page in pages for event in page]
    assert seen == sorted(set(seen), reverse=True)
    first = (await ada.client.get(f"/tasks/{task}/history", params={"limit": 2})).json()
    await make.sql.execute("update tasks set title = 'meanwhile'")
    second = await ada.client.get(f"/tasks/{task}/history", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [event["id"] for event in first["items"] + second.json()["items"]] == seen[:4]


async def test_a_cursor_works_only_for_its_viewer_and_task(make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    tasks = [await make.task(ada) for _ in range(2)]
    await make.sql.execute("update tasks set title = 'y'")
    cursor = (await ada.client.get(f"/tasks/{tasks[0]}/history?limit=1")).json()["next_cursor"]
    listed = (await ada.client.get("/tasks?limit=1")).json()["next_cursor"]
    heard = (await ada.client.get("/events")).json()["cursor"]
    assert (await ada.client.get(f"/tasks/{tasks[0]}/history", params={"cursor": cursor})).status_code == 200
    for viewer, task, foreign_cursor in [
        (ada, tasks[1], cursor),
        (root, tasks[0], cursor),
        (ada, tasks[0], listed),
        (ada, tasks[0], heard),
        (ada, tasks[0], cursor[:-1]),
        (ada, tasks[0], ""),
    ]:
        refused = await viewer.client.get(f"/tasks/{task}/history", params={"cursor": foreign_cursor})
        problem(refused, 422, pointers={"/query/cursor"})
    problem(await ada.client.get("/tasks", params={"cursor": cursor}), 422, pointers={"/query/cursor"})


@pytest.mark.parametrize("limit", ["0", "101", "x", "1.5", "", "-1"])
async def test_a_page_has_one_to_a_hundred(make: Factory, limit: str) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}/history"
    problem(await ada.client.get(path, params={"limit": limit}), 422, pointers={"/query/limit"})


@pytest.mark.parametrize("deleted", [False, True])
async def test_anothers_history_is_forbidden(make: Factory, client: httpx.AsyncClient, deleted: bool) -> None:
    ada, bob = await make.user(), await make.user()
    path = f"/tasks/{await make.task(ada)}"
    if deleted:
        await ada.client.delete(path)
    assert problem(await bob.client.get(f"{path}/history"), 403)["code"] == "forbidden"
    problem(await client.get(f"{path}/history"), 401)


async def test_a_deleted_task_without_events_has_no_history(make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    kept, gone = await make.task(ada), await make.task(ada)
    await ada.client.delete(f"/tasks/{gone}")
    await make.sql.execute("delete from task_events")
    for viewer in (ada, root):
        problem(await viewer.client.get(f"/tasks/{gone}/history"), 404)
        assert (await viewer.client.get(f"/tasks/{kept}/history")).json() == {"items": [], "next_cursor": None}
