"""The statement of a task's history: its rows and the rights to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory, User

EVENT = {"id", "type", "task_id", "user_id", "actor_id", "at", "changes", "task"}


async def history(
    db: Database,
    viewer: Viewer,
    task_id: int,
    *,
    before_id: int | None = None,
    row_limit: int = 100,
    byte_limit: int = 1 << 20,
) -> Sequence[Mapping[str, Any]]:
    rows = await q.tasks.history(
        db,
        task_id=task_id,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        before_id=before_id,
        row_limit=row_limit,
        byte_limit=byte_limit,
    )
    return [dict(row) for row in rows]


async def changed(make: Factory, owner: User, *, times: int = 2) -> int:
    """Make a task with a history among another's events."""
    task = await make.task(owner)
    for number in range(times):
        await make.task(owner)
        await make.sql.execute("update tasks set title = $2 where id = $1", task, f"title {number}")
    return task


async def test_a_history_has_the_tasks_events_and_no_others_newest_first(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await changed(make, ada)
    rows = await history(database, ada.viewer, task)
    kept = await make.sql.fetch("select id from task_events where task_id = $1 order by id desc", task)
    assert [row["id"] for row in rows] == [row["id"] for row in kept]
    assert [row["type"] for row in rows] == ["task.updated", "task.updated", "task.created"]
    assert all(row.keys() == {*EVENT, "found_count", "is_event", "verdict"} for row in rows)
    assert {(row["task_id"], row["is_event"], row["verdict"]) for row in rows} == {(task, True, "ok")}


async def test_a_page_continues_after_an_event(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await changed(make, ada)
    first, second, third = [row["id"] for row in await history(database, ada.viewer, task)]
    assert [row["id"] for row in await history(database, ada.viewer, task, row_limit=2)] == [first, second]
    assert [row["id"] for row in await history(database, ada.viewer, task, before_id=first)] == [second, third]
    (end,) = await history(database, ada.viewer, task, before_id=third)
    assert (end["id"], end["is_event"], end["verdict"]) == (None, False, "ok")


async def test_a_page_is_cut_where_its_events_come_to_so_many_bytes(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await changed(make, ada, times=4)
    rows = [
        dict(row) for row in await make.sql.fetch("select * from task_events where task_id = $1 order by id desc", task)
    ]
    ids = [row["id"] for row in rows]
    for byte_limit, count in [(1, 1), (rows[0]["size"], 1), (rows[0]["size"] + 1, 2), (1 << 20, 4)]:
        found = await history(database, ada.viewer, task, row_limit=4, byte_limit=byte_limit)
        assert [row["id"] for row in found] == ids[:count]
        assert {row["found_count"] for row in found} == {4}


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize(("who", "verdict"), [("owner", "ok"), ("admin", "ok"), ("other", "forbidden")])
async def test_only_the_last_owner_and_administrators_may(
    database: Database, make: Factory, who: str, verdict: str, deleted: bool
) -> None:
    before, owner = await make.user(), await make.user()
    viewer = {"owner": owner, "admin": await make.admin(), "other": before}[who].viewer
    task = await changed(make, before)
    await make.sql.execute("update tasks set user_id = $2 where id = $1", task, owner.id)
    if deleted:
        await make.sql.execute("delete from tasks where id = $1", task)
    rows = await history(database, viewer, task)
    assert {row["verdict"] for row in rows} == {verdict}
    assert len(rows) == (1 if verdict == "forbidden" else 4 + deleted)
    if verdict == "forbidden":
        assert {rows[0][name] for name in EVENT} == {None}


async def test_a_task_without_events_has_a_row_and_a_purged_task_has_none(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    task = await make.task(ada)
    await make.sql.execute("delete from task_events")
    (mine,) = await history(database, ada.viewer, task)
    (his,) = await history(database, bob.viewer, task)
    assert (mine["is_event"], mine["verdict"], his["verdict"]) == (False, "ok", "forbidden")
    assert await history(database, ada.viewer, task + 1) == []
