"""Bringing a deleted task back: with its id, to its owner or an administrator, for 30 days."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.db.queries import q
from tests.support.factories import Factory
from tests.support.problems import problem

WHOLE = {"title": "Prepare Report", "description": "Collect data", "status": "in_progress", "city": "Moscow"}


async def test_a_deleted_task_comes_back_where_it_was(make: Factory) -> None:
    ada = await make.user()
    created = await ada.client.post("/tasks", json=WHOLE)
    path = created.headers["Location"]
    await make.sql.execute("""update tasks set weather = '{"temperature": 1.5, "condition": "Snow"}'""")
    before = (await ada.client.get(path)).json()
    await ada.client.delete(path)
    problem(await ada.client.get(path), 404)
    restored = await ada.client.post(f"{path}/restore")
    assert restored.status_code == 200
    assert restored.headers["ETag"] == '"4"'
    after = restored.json()
    assert after == {**before, "version": 4, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert (await ada.client.get(path)).json() == after
    changed = await ada.client.patch(path, json={"title": "goes on"}, headers={"If-Match": restored.headers["ETag"]})
    assert changed.json()["version"] == 5


async def test_subscribers_get_a_restored_event(make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    path = f"/tasks/{await make.task(ada)}"
    await ada.client.delete(path)
    cursor = (await ada.client.get("/events")).json()["cursor"]
    task = (await root.client.post(f"{path}/restore")).json()
    (event,) = (await ada.client.get("/events", params={"since": cursor})).json()["items"]
    assert (event["type"], event["actor_id"], event["user_id"]) == ("task.restored", root.id, ada.id)
    assert {**event["task"], "created_at": "", "updated_at": ""} == {**task, "created_at": "", "updated_at": ""}
    history = (await ada.client.get(f"{path}/history")).json()["items"]
    assert [one["type"] for one in history] == ["task.restored", "task.deleted", "task.created"]


async def test_an_existing_task_cannot_be_restored(make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    path = f"/tasks/{await make.task(ada)}"
    assert problem(await ada.client.post(f"{path}/restore"), 409)["code"] == "conflict"
    problem(await bob.client.post(f"{path}/restore"), 403)
    assert (await ada.client.get(path)).json()["version"] == 1


async def test_anothers_stays_deleted(make: Factory, client: httpx.AsyncClient) -> None:
    ada, bob = await make.user(), await make.user()
    path = f"/tasks/{await make.task(ada)}"
    await ada.client.delete(path)
    assert problem(await bob.client.post(f"{path}/restore"), 403)["code"] == "forbidden"
    problem(await client.post(f"{path}/restore"), 401)
    problem(await ada.client.get(path), 404)


@pytest.mark.parametrize("left", [True, False])
async def test_a_task_deleted_too_long_ago_is_not_found(make: Factory, left: bool) -> None:
    ada, root = await make.user(), await make.admin()
    path = f"/tasks/{await make.task(ada)}"
    await ada.client.delete(path)
    await make.sql.execute(
        "update task_events set at = now() - interval '31 days'" if left else "delete from task_events"
    )
    for viewer in (ada, root):
        assert problem(await viewer.client.post(f"{path}/restore"), 404)["code"] == "not_found"
        problem(await viewer.client.get(path), 404)


async def test_a_deleted_account_restores_no_task(make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    path = f"/tasks/{await make.task(ada)}"
    await ada.client.delete(path)
    await make.sql.execute("delete from users where id = $1", ada.id)
    problem(await root.client.post(f"{path}/restore"), 409)


async def test_a_restore_that_waits_for_another_sees_its_result(make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await ada.client.delete(f"/tasks/{task}")
    async with make.sql.transaction():
        await q.tasks.lock_restoration(make.sql, task_id=task)
        waiting = asyncio.create_task(ada.client.post(f"/tasks/{task}/restore"))
        async with asyncio.timeout(10):
            while not await make.sql.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                assert not waiting.done()
        await q.tasks.restore(make.sql, task_id=task, viewer_id=ada.id, viewer_is_admin=False)
        await make.sql.execute("delete from tasks")
    assert (await waiting).json()["version"] == 5


async def test_one_of_two_concurrent_requests_restores(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    for version in range(3, 13, 2):
        await ada.client.delete(path)
        answers = await asyncio.gather(*[ada.client.post(f"{path}/restore") for _ in range(2)])
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert (await ada.client.get(path)).json()["version"] == version
