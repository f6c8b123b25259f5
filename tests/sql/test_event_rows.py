"""The rows that the triggers write: one for each change of a task by any writer, and none for anything else."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from service.db.pool import Connection, Database
from service.db.queries import q
from service.db.statements import Statement, read_all
from tests.sql.conftest import Session, Sessions
from tests.sql.test_plans import nodes
from tests.support.factories import Factory, User

SNOW, HEAT = {"condition": "Snow", "temperature": 1}, {"condition": "Clear", "temperature": 35}
KEPT: dict[str, Any] = {"set_title": False, "set_description": False, "set_status": False, "set_city": False}
VALUES: dict[str, Any] = {"title": "x", "description": None, "status": "todo", "city": None, "weather": None}


async def events(sql: Session) -> list[dict[str, Any]]:
    rows = await sql.fetch("select * from task_events order by id")
    return [{**row, **{name: row[name] and orjson.loads(row[name]) for name in ("task", "changes")}} for row in rows]


async def columns(sql: Session) -> list[str]:
    """Return the names of the fields with which a task leaves the database, in their order."""
    statement = "select attname from pg_attribute where attrelid = 'task_view'::regclass and attnum > 0 order by attnum"
    return [row["attname"] for row in await sql.fetch(statement)]


async def last(sql: Session) -> dict[str, Any]:
    return (await events(sql))[-1]


async def change(db: Database | Connection, who: User, task: int, **values: Any) -> None:
    flags = {f"set_{name}": True for name in values}
    await q.tasks.update(
        db,
        task_id=task,
        viewer_id=who.id,
        viewer_is_admin=who.viewer.is_admin,
        expected_versions=None,
        **{**VALUES, **values, **KEPT, **flags},
    )


async def delete(db: Database | Connection, who: User, task: int) -> None:
    await q.tasks.delete(
        db, task_id=task, viewer_id=who.id, viewer_is_admin=who.viewer.is_admin, expected_versions=None
    )


async def test_a_change_through_the_service_has_its_user_as_actor(database: Database, make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    task = (await q.tasks.create(database, user_id=ada.id, **VALUES))["id"]
    await change(database, root, task, title="y")
    await change(database, ada, task, status="done")
    await delete(database, root, task)
    found = await events(make.sql)
    assert [(one["type"], one["actor_id"]) for one in found] == [
        ("task.created", ada.id),
        ("task.updated", root.id),
        ("task.updated", ada.id),
        ("task.deleted", root.id),
    ]
    assert [one["changes"] for one in found] == [None, {"title": ["x", "y"]}, {"status": ["todo", "done"]}, None]
    assert {(one["task_id"], one["user_id"], one["previous_user_id"]) for one in found} == {(task, ada.id, None)}
    assert [one["task"]["version"] for one in found] == [1, 2, 3, 4]
    assert [one["task"]["status"] for one in found] == ["todo", "todo", "done", "done"]
    assert [one["id"] for one in found] == sorted({one["id"] for one in found})


async def test_a_change_outside_the_service_has_no_actor(database: Database, make: Factory) -> None:
    ada = await make.user()
    async with database.connection() as connection:  # on which the service has named somebody before
        task = (await q.tasks.create(connection, user_id=ada.id, **VALUES))["id"]
        await connection.execute("update tasks set title = 'y'")
        await connection.execute("insert into tasks (user_id, title) values ($1, 'z')", ada.id)
        await connection.execute("delete from tasks")
    found = await events(make.sql)
    assert [(one["type"].removeprefix("task."), one["actor_id"]) for one in found] == [
        ("created", ada.id),
        ("updated", None),
        ("created", None),
        ("deleted", None),
        ("deleted", None),
    ]
    assert found[0]["task_id"] == task


async def test_a_refused_or_stale_change_writes_no_event(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    task = await make.task(ada)
    await change(database, bob, task, title="y")
    await delete(database, bob, task)
    await q.tasks.delete(database, task_id=task, viewer_id=ada.id, viewer_is_admin=False, expected_versions=[7])
    assert len(await events(make.sql)) == 1


# What a task was given, what is changed then, and what the event says of it.
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("title = 'a'", "title = 'b'", {"title": ["a", "b"]}),
    ("description = null", "description = 'b'", {"description": [None, "b"]}),
    ("description = 'a'", "description = null", {"description": ["a", None]}),
    ("description = 'a'", "description = ''", {"description": ["a", ""]}),
    ("status = 'todo'", "status = 'done'", {"status": ["todo", "done"]}),
    ("city = null", "city = 'Oslo'", {"city": [None, "Oslo"]}),
    ("city = 'Oslo'", "city = null", {"city": ["Oslo", None]}),
    ("city = 'Oslo'", f"weather = '{orjson.dumps(SNOW).decode()}'", {"weather": [None, SNOW]}),
    (
        f"city = 'Oslo', weather = '{orjson.dumps(SNOW).decode()}'",
        f"weather = '{orjson.dumps(HEAT).decode()}'",
        {"weather": [SNOW, HEAT]},
    ),
    (
        f"city = 'Oslo', weather = '{orjson.dumps(SNOW).decode()}'",
        "city = 'Paris'",
        {"city": ["Oslo", "Paris"], "weather": [SNOW, None]},
    ),
    (
        "created_at = '2025-01-02 03:04:05.678Z'",
        "created_at = '2024-01-02 01:00:00+05'",
        {"created_at": ["2025-01-02T03:04:05.678000Z", "2024-01-01T20:00:00.000000Z"]},
    ),
    (
        "title = 'a', status = 'todo'",
        """title = E'"\\\\\\n', status = 'done', city = null""",
        {"title": ["a", '"\\\n'], "status": ["todo", "done"]},
    ),
]


@pytest.mark.parametrize(("initial", "changed", "expected"), CHANGES)
async def test_changes_are_the_fields_with_another_value_before_and_now(
    make: Factory, initial: str, changed: str, expected: dict[str, Any]
) -> None:
    await make.task(await make.user())
    await make.sql.execute(f"update tasks set {initial}")
    await make.sql.execute(f"update tasks set {changed}")
    event = await last(make.sql)
    assert (event["type"], event["changes"]) == ("task.updated", expected)
    assert {name: event["task"][name] for name in expected} == {name: now for name, (_, now) in expected.items()}


async def test_every_field_that_can_change_has_a_case(make: Factory) -> None:
    cases = {name for *_, expected in CHANGES for name in expected} | {"user_id"}
    assert set(await columns(make.sql)) - {"id", "version", "updated_at"} == cases


@pytest.mark.parametrize(
    "change",
    [
        "title = title",
        "description = null",
        "version = 99",
        "updated_at = '2020-01-01Z'",
        "weather_due_at = now()",
        "weather_city = 'Paris'",
    ],
)
async def test_an_update_that_changes_nothing_writes_no_event(make: Factory, change: str) -> None:
    await make.task(await make.user())
    assert await make.sql.execute(f"update tasks set {change}") == "UPDATE 1"
    assert len(await events(make.sql)) == 1


async def test_a_rolled_back_change_leaves_no_event(make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute("begin")
    await make.task(ada)
    await make.sql.execute("rollback; begin")
    await make.task(ada, title="kept")
    await make.sql.execute("savepoint s; update tasks set title = 'lost'; rollback to s; commit")
    assert [(one["type"], one["task"]["title"]) for one in await events(make.sql)] == [("task.created", "kept")]


@pytest.mark.parametrize("statement", ["truncate tasks", "truncate users cascade", "truncate tasks restart identity"])
async def test_truncation_is_refused(make: Factory, statement: str) -> None:
    await make.task(await make.user())
    with pytest.raises(asyncpg.FeatureNotSupportedError, match=r"cannot be truncated|referenced in a foreign key"):
        await make.sql.execute(statement)
    assert await make.sql.fetchval("select count(*) from tasks") == 1


async def test_a_change_of_owner_names_both(make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    await make.task(ada)
    await make.sql.execute("update tasks set user_id = $1", bob.id)
    event = await last(make.sql)
    assert (event["user_id"], event["previous_user_id"]) == (bob.id, ada.id)
    assert event["changes"] == {"user_id": [ada.id, bob.id]}
    assert event["task"]["user_id"] == bob.id
    await make.sql.execute("delete from tasks")
    event = await last(make.sql)
    assert (event["type"], event["user_id"], event["previous_user_id"]) == ("task.deleted", bob.id, None)


async def test_one_statement_over_many_tasks_writes_one_event_for_each(make: Factory) -> None:
    ada = await make.user()
    tasks = [await make.task(ada) for _ in range(5)]
    await make.sql.execute("update tasks set status = 'done'")
    await make.sql.execute("delete from tasks")
    found = await events(make.sql)
    assert len(found) == 15
    for task in tasks:
        mine = [one["type"].removeprefix("task.") for one in found if one["task_id"] == task]
        assert mine == ["created", "updated", "deleted"]


async def test_the_sessions_zone_and_style_do_not_matter(make: Factory, session: Sessions) -> None:
    ada = await make.user()
    task = await make.task(ada, created_at=datetime.fromisoformat("2025-05-24T14:35:00.5Z"))
    far = await session(TimeZone="Asia/Kathmandu", DateStyle="SQL, DMY", IntervalStyle="iso_8601")
    await far.execute("update tasks set created_at = created_at + interval '1 day'")
    event = await last(make.sql)
    assert event["changes"]["created_at"] == ["2025-05-24T14:35:00.500000Z", "2025-05-25T14:35:00.500000Z"]
    assert event["task"]["created_at"] == "2025-05-25T14:35:00.500000Z"
    shown = (await ada.client.get(f"/tasks/{task}")).json()
    assert datetime.fromisoformat(event["task"]["updated_at"]) == datetime.fromisoformat(shown["updated_at"])
    assert event["task"]["updated_at"].endswith("Z")
    assert abs(event["at"] - datetime.fromisoformat(shown["updated_at"])) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "initial",
    [
        {},
        {"title": 'a "quoted" \\ task\n</script>', "description": "\N{GRINNING FACE}\u2028" * 500, "status": "done"},
        {"city": "Oslo", "weather": '{"temperature": -0.5, "condition": "Snow", "more": {"deep": [1, null]}}'},
    ],
)
async def test_the_task_is_as_the_api_shows_it(make: Factory, initial: dict[str, Any]) -> None:
    ada = await make.user()
    task = await make.task(ada, **initial)
    shown = (await ada.client.get(f"/tasks/{task}")).json()
    event = await last(make.sql)
    assert list(event["task"]) == list(shown) == await columns(make.sql)
    for name in ("created_at", "updated_at"):
        assert datetime.fromisoformat(event["task"].pop(name)) == datetime.fromisoformat(shown.pop(name))
    assert event["task"] == shown
    written = await make.sql.fetchrow("select size, octet_length(task::text) as bytes from task_events")
    assert written
    assert written["size"] == written["bytes"]


async def test_the_size_counts_the_changes_too(make: Factory) -> None:
    await make.task(await make.user())
    await make.sql.execute("update tasks set title = 'y'")
    row = await make.sql.fetchrow(
        "select size, octet_length(task::text) + octet_length(changes::text) as bytes from task_events"
        " where type = 'task.updated'"
    )
    assert row
    assert row["size"] == row["bytes"]


@pytest.mark.parametrize(
    ("name", "heard"),
    [("psql", True), ("", True), ("task-manager", False), ("task-manager listener", False), ("the task-manager", True)],
)
async def test_a_foreign_session_notifies_and_the_services_own_does_not(
    make: Factory, session: Sessions, name: str, heard: bool
) -> None:
    ada = await make.user()
    writer, subscriber = await session(application_name=name), await session()
    payloads: asyncio.Queue[Any] = asyncio.Queue()
    await subscriber.add_listener("task_events", lambda *call: payloads.put_nowait((call[1], call[3])))
    await writer.execute(f"insert into tasks (user_id, title) values ({ada.id}, 'x'); update tasks set title = 'y'")
    await writer.execute("update tasks set title = title")
    await make.sql.execute("notify task_events, 'the end'")
    received = []
    async with asyncio.timeout(10):
        while (one := await payloads.get())[1] != "the end":
            if one[0] == writer.get_server_pid():
                received.append(one[1])
    assert received == ([""] if heard else [])


async def test_a_change_of_role_and_the_end_of_an_account_are_announced(make: Factory, session: Sessions) -> None:
    ada, bob = await make.user(), await make.user()
    subscriber = await session()
    payloads: asyncio.Queue[Any] = asyncio.Queue()
    await subscriber.add_listener("accounts", lambda *call: payloads.put_nowait(call[3]))
    await make.sql.execute("update users set role = 'admin' where id = $1", ada.id)
    await make.sql.execute("update users set role = 'admin', username = 'other' where id = $1", ada.id)
    await make.sql.execute("delete from users where id = $1", bob.id)
    await make.sql.execute("notify accounts, '0'")
    async with asyncio.timeout(10):
        received = [await payloads.get() for _ in range(3)]
    assert received == [str(ada.id), str(bob.id), "0"]


@pytest.mark.parametrize(
    "statement",
    [one for one in read_all() if one.header.returns != "script" and not one.header.extension],
    ids=lambda one: one.name,
)
async def test_every_statement_that_changes_tasks_declares_it(sql: Session, statement: Statement) -> None:
    changes = False
    for text in statement.texts.values():
        nothing = [None] * len(statement.header.params)
        plan = await sql.fetchval(f"explain (format json) {text}", *nothing)
        for node in nodes(orjson.loads(plan)[0]["Plan"]):
            changes |= node["Node Type"] == "ModifyTable" and node["Relation Name"] in {"tasks", "attachments"}
    if statement.name == "weather.claim":  # sets when it is due, which is no change
        return
    assert statement.header.notifies == ("task_events" if changes else "")


async def test_a_process_is_notified_only_of_its_own_commits(
    database: Database, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    heard: list[None] = []
    monkeypatch.setattr(database, "on_change", lambda: heard.append(None))
    task = (await q.tasks.create(database, user_id=ada.id, **VALUES))["id"]
    assert len(heard) == 1
    await q.tasks.get(database, task_id=task, viewer_id=ada.id, viewer_is_admin=False)
    with pytest.raises(Exception, match="should have 1 to 100"):
        await change(database, ada, task, title="")
    assert len(heard) == 1
    await change(database, ada, task, title="y")
    await delete(database, ada, task)
    assert len(heard) == 3
