"""The statements that bring a deleted task back: what it is then, who may, and what two at once come to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

SNOW = '{"condition": "Snow", "more": {"deep": [1, null]}, "temperature": -0.5}'
NOBODY = Viewer(id=0, is_admin=False)


async def restore(db: Database, viewer: Viewer, task_id: int) -> Mapping[str, Any] | None:
    async with db.transaction() as transaction:
        await q.tasks.lock_restoration(transaction, task_id=task_id)
        row = await q.tasks.restore(transaction, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
    return row and dict(row)


async def verdict(db: Database, viewer: Viewer, task_id: int) -> Any:
    row = await restore(db, viewer, task_id)
    return row and row["verdict"]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"title": 'a "quoted" \\ task\n', "description": "\N{GRINNING FACE}\u2028" * 500, "status": "done"},
        {"city": "Oslo", "weather": SNOW},
        {"city": "Oslo", "weather": None, "description": ""},
        {"version": 2**40},
    ],
)
async def test_a_task_comes_back_as_it_was_and_its_version_goes_on(
    database: Database, make: Factory, columns: dict[str, Any]
) -> None:
    ada = await make.user()
    task = await make.task(ada, **columns)
    await make.sql.execute(
        "update tasks set created_at = '2020-01-02 03:04:05.678901Z', updated_at = updated_at,"
        " completed_at = '2020-02-03 04:05:06.789012Z'"
    )
    before = await make.sql.fetchrow("delete from tasks returning *")
    assert before
    row = await restore(database, ada.viewer, task)
    after = await make.sql.fetchrow("select * from tasks")
    assert after
    assert row
    expected = {**before, "version": before["version"] + 2, "updated_at": after["updated_at"]}
    assert dict(after) == {**expected, "weather_due_at": after["weather_due_at"]}
    assert after["updated_at"] > before["updated_at"]
    shown = {name: after[name] for name in row if name not in {"verdict", "weather"}}
    assert {name: row[name] for name in shown} == shown
    assert orjson.loads(orjson.dumps(row["weather"])) == orjson.loads(after["weather"] or "null")
    assert await make.sql.fetchval("insert into tasks (user_id, title) values ($1, 'next') returning id", ada.id) > task


async def test_the_last_change_is_the_completion_time_if_a_deletion_kept_none(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    task = await make.task(ada, status="done", created_at=datetime(2020, 1, 2, tzinfo=UTC))
    await make.sql.execute("update tasks set title = 'y'")
    changed_at = await make.sql.fetchval("delete from tasks returning updated_at")
    await make.sql.execute("update task_events set completed_at = null")
    assert await verdict(database, ada.viewer, task) == "ok"
    assert await make.sql.fetchval("select completed_at from tasks") == changed_at


async def test_the_event_of_a_restore_has_its_type_and_actor_and_the_next_one_has_not(
    database: Database, make: Factory
) -> None:
    ada, root = await make.user(), await make.admin()
    task = await make.task(ada)
    await make.sql.execute("delete from tasks")
    arguments: dict[str, Any] = {"title": "x", "description": None, "status": "todo", "city": None, "weather": None}
    async with database.connection() as connection:
        async with connection.transaction():
            await q.tasks.lock_restoration(connection, task_id=task)
            await q.tasks.restore(connection, task_id=task, viewer_id=root.id, viewer_is_admin=True)
        await q.tasks.create(connection, user_id=ada.id, **arguments)
        await connection.execute("update tasks set title = 'y' where id = $1", task)
    rows = await make.sql.fetch(
        "select type, actor_id, user_id, changes is null, task->>'version' from task_events order by id"
    )
    assert [tuple(row) for row in rows[2:]] == [
        ("task.restored", root.id, ada.id, True, "3"),
        ("task.created", ada.id, ada.id, True, "1"),
        ("task.updated", None, ada.id, False, "4"),
    ]


@pytest.mark.parametrize("event_type", ["task.updated", "nonsense", ""])
async def test_an_event_type_setting_that_does_not_fit_is_ignored(make: Factory, event_type: str) -> None:
    ada = await make.user()
    async with make.sql.transaction():
        await make.sql.execute("select set_config('service.event_type', $1, true)", event_type)
        await make.task(ada)
    async with make.sql.transaction():
        await make.sql.execute("select set_config('service.event_type', 'task.restored', true)")
        await make.sql.execute("update tasks set title = 'y'; delete from tasks")
    rows = await make.sql.fetch("select type from task_events order by id")
    assert [row["type"] for row in rows] == ["task.created", "task.updated", "task.deleted"]


async def test_only_the_last_owner_and_administrators_may(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    task = await make.task(ada)
    await make.sql.execute("update tasks set user_id = $1", bob.id)
    assert await verdict(database, ada.viewer, task) == "forbidden"
    await make.sql.execute("delete from tasks")
    for viewer in (NOBODY, ada.viewer):
        assert await verdict(database, viewer, task) == "forbidden"
    assert await make.sql.fetchval("select count(*) from tasks") == 0
    assert await verdict(database, root.viewer, task) == "ok"
    await make.sql.execute("delete from tasks")
    assert await verdict(database, bob.viewer, task) == "ok"
    assert await make.sql.fetchval("select user_id from tasks") == bob.id
    assert [await verdict(database, one.viewer, task) for one in (bob, root, ada)] == [
        "present",
        "present",
        "forbidden",
    ]


@pytest.mark.parametrize(("age", "expected"), [("29 days 23 hours", "ok"), ("30 days 1 minute", "gone")])
async def test_a_deletion_of_thirty_days_ago_is_final(
    database: Database, make: Factory, age: str, expected: str
) -> None:
    ada, bob = await make.user(), await make.user()
    task = await make.task(ada)
    await make.sql.execute(f"delete from tasks; update task_events set at = now() - interval '{age}'")
    assert await verdict(database, bob.viewer, task) == "forbidden"
    assert await verdict(database, ada.viewer, task) == expected
    assert await make.sql.fetchval("select count(*) from tasks") == (expected == "ok")


async def test_a_task_without_a_trace_has_no_row(database: Database, make: Factory) -> None:
    root = await make.admin()
    task = await make.task(root)
    await make.sql.execute("delete from tasks; delete from task_events")
    assert await restore(database, root.viewer, task) is None


async def test_a_task_without_events_is_there(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    task = await make.task(ada)
    await make.sql.execute("delete from task_events")
    assert await verdict(database, ada.viewer, task) == "present"
    assert await verdict(database, bob.viewer, task) == "forbidden"


async def test_the_task_of_a_deleted_account_is_not_restored(database: Database, make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    task = await make.task(ada)
    await make.sql.execute("delete from tasks")
    await make.sql.execute("delete from users where id = $1", ada.id)
    assert await verdict(database, root.viewer, task) == "ownerless"


async def test_one_of_many_concurrent_transactions_restores(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    for version in range(3, 13, 2):
        await make.sql.execute("delete from tasks")
        verdicts = await asyncio.gather(*(verdict(database, ada.viewer, task) for _ in range(8)))
        assert sorted(verdicts) == ["ok"] + ["present"] * 7
        assert await make.sql.fetchval("select version from tasks") == version


async def test_a_restore_that_waited_sees_changes_committed_meanwhile(database: Database, make: Factory) -> None:
    """Else a restoration that began before a second deletion would bring the first one's task back."""
    ada = await make.user()
    task = await make.task(ada, title="before")
    await make.sql.execute("delete from tasks")
    async with make.sql.transaction():
        await q.tasks.lock_restoration(make.sql, task_id=task)
        waiting = asyncio.create_task(restore(database, ada.viewer, task))
        async with asyncio.timeout(10):
            while not await make.sql.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                pass
        await q.tasks.restore(make.sql, task_id=task, viewer_id=ada.id, viewer_is_admin=False)
        await make.sql.execute("update tasks set title = 'between'")
        await make.sql.execute("delete from tasks")
    row = await waiting
    assert row
    assert (row["verdict"], row["title"], row["version"]) == ("ok", "between", 6)


async def test_a_dbas_insert_in_between_is_that_task(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await make.sql.execute("delete from tasks")
    async with make.sql.transaction():
        await make.sql.execute(
            "insert into tasks (id, user_id, title) overriding system value values ($1, $2, 'by hand')", task, ada.id
        )
        waiting = asyncio.create_task(restore(database, ada.viewer, task))
        async with asyncio.timeout(10):
            while not await make.sql.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ):
                pass
    row = await waiting
    assert row
    assert (row["verdict"], row["id"]) == ("present", None)
    assert await make.sql.fetchval("select title from tasks") == "by hand"
