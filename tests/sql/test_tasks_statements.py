"""The statements of `sql/tasks/`: their results, their refusals and concurrent calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

SNOW, HEAT = '{"temperature": 1.5, "condition": "Snow"}', '{"temperature": 35, "condition": "Clear"}'
NOBODY = Viewer(id=0, is_admin=False)
COLUMNS = {"id", "title", "description", "status", "city", "weather", "user_id", "created_at", "updated_at", "version"}
NEWEST: dict[str, Any] = {
    "user_id": None,
    "status": None,
    "city": None,
    "created_from": None,
    "created_before": None,
    "after_value": None,
    "after_id": None,
    "row_limit": 100,
    "row_offset": 0,
}
PAGE = ("after_value", "after_id", "row_limit", "row_offset")


def temperature(row: Mapping[str, Any] | None) -> Any:
    assert row
    return (orjson.loads(orjson.dumps(row["weather"])) or {}).get("temperature")


async def get(db: Database, viewer: Viewer, task_id: int) -> Mapping[str, Any] | None:
    row = await q.tasks.get(db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
    return row and dict(row)


async def update(
    db: Database,
    viewer: Viewer,
    task_id: int,
    *,
    versions: list[int] | None = None,
    weather: str | None = None,
    **changes: Any,
) -> Mapping[str, Any] | None:
    values: dict[str, Any] = {"status": None, "title": None, "description": None, "city": None, **changes}
    flags: dict[str, Any] = {f"set_{name}": name in changes for name in values}
    row = await q.tasks.update(
        db,
        task_id=task_id,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        expected_versions=versions,
        weather=orjson.Fragment(weather) if weather else None,
        **values,
        **flags,
    )
    return row and dict(row)


async def delete(
    db: Database, viewer: Viewer, task_id: int, *, versions: list[int] | None = None
) -> Mapping[str, Any] | None:
    row = await q.tasks.delete(
        db, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, expected_versions=versions
    )
    return row and dict(row)


async def listed(db: Database, viewer: Viewer, *, sort: Any = "id", **values: Any) -> list[int]:
    rows = await q.tasks.list(
        db, sort=sort, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, **{**NEWEST, **values}
    )
    total = await q.tasks.count(
        db,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        **{name: value for name, value in {**NEWEST, **values}.items() if name not in PAGE},
    )
    if not values.keys() & set(PAGE):
        assert total == len(rows)
    return [row["id"] for row in rows]


async def test_a_new_task_has_the_values_sent_and_the_defaults(database: Database, make: Factory) -> None:
    ada = await make.user()
    arguments: dict[str, Any] = {"title": "One", "description": None, "status": "done", "city": "Moscow"}
    row: dict[str, Any] = dict(await q.tasks.create(database, user_id=ada.id, **arguments, weather=None))
    assert row.keys() == COLUMNS
    assert (row["title"], row["description"], row["status"], row["city"]) == ("One", None, "done", "Moscow")
    assert (row["user_id"], row["version"], row["weather"]) == (ada.id, 1, None)
    assert await get(database, ada.viewer, row["id"]) == {**row, "verdict": "ok"}
    row = dict(await q.tasks.create(database, user_id=ada.id, **arguments, weather=orjson.Fragment(SNOW)))
    assert (temperature(row), row["version"]) == (1.5, 1)


@pytest.mark.parametrize(("who", "verdict"), [("owner", "ok"), ("admin", "ok"), ("other", "forbidden")])
async def test_an_outcome_tells_whether_the_viewer_may(
    database: Database, make: Factory, who: str, verdict: str
) -> None:
    owner = await make.user()
    viewer = {"owner": owner, "admin": await make.admin(), "other": await make.user()}[who].viewer
    task = await make.task(owner, title="before")
    seen = await get(database, viewer, task)
    changed = await update(database, viewer, task, title="after")
    deleted = await delete(database, viewer, task)
    assert seen
    assert changed
    assert deleted
    assert seen["verdict"] == changed["verdict"] == deleted["verdict"] == verdict
    assert seen["title"] == "before"
    assert changed["title"] == ("after" if verdict == "ok" else "before")
    left = await get(database, owner.viewer, task)
    assert (left and left["title"]) == (None if verdict == "ok" else "before")


async def test_a_missing_task_has_no_row(database: Database, make: Factory) -> None:
    ada = await make.admin()
    assert await get(database, ada.viewer, 0) is None
    assert await update(database, ada.viewer, 0, title="x") is None
    assert await delete(database, ada.viewer, 0) is None


@pytest.mark.parametrize(
    ("versions", "verdict"), [(None, "ok"), ([2], "ok"), ([1, 2], "ok"), ([1, 3], "stale"), ([], "stale")]
)
async def test_a_change_is_guarded_by_the_versions_that_are_expected(
    database: Database, make: Factory, versions: list[int] | None, verdict: str
) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await make.sql.execute("update tasks set title = 'second version'")
    changed = await update(database, ada.viewer, task, versions=versions, title="third version")
    assert changed
    assert (changed["verdict"], changed["version"]) == (verdict, 3 if verdict == "ok" else 2)
    deleted = await delete(database, ada.viewer, task, versions=versions and [one + 1 for one in versions])
    assert deleted
    assert deleted["version"] == changed["version"]


async def test_forbidden_goes_before_stale(database: Database, make: Factory) -> None:
    task = await make.task(await make.user())
    changed = await update(database, NOBODY, task, versions=[99], title="x")
    deleted = await delete(database, NOBODY, task, versions=[99])
    assert changed
    assert deleted
    assert changed["verdict"] == deleted["verdict"] == "forbidden"


async def test_a_stale_deletion_leaves_the_task(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    assert await delete(database, ada.viewer, task, versions=[7]) == {"verdict": "stale", "version": 1}
    assert await get(database, ada.viewer, task)
    assert await delete(database, ada.viewer, task, versions=[1]) == {"verdict": "ok", "version": 1}
    assert await delete(database, ada.viewer, task, versions=[1]) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", "new"),
        ("description", "new"),
        ("description", None),
        ("status", "done"),
        ("city", "new"),
        ("city", None),
    ],
)
async def test_only_what_was_sent_is_changed(database: Database, make: Factory, name: str, value: Any) -> None:
    ada = await make.user()
    task = await make.task(ada, description="old", city="old")
    before = await get(database, ada.viewer, task)
    after = await update(database, ada.viewer, task, **{name: value})
    assert before
    assert after
    assert after == {**before, name: value, "version": 2, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert await update(database, ada.viewer, task, **{name: value}) == after
    assert await update(database, ada.viewer, task) == after


@pytest.mark.parametrize(
    ("city", "found", "after"),
    [("Moscow", HEAT, 1.5), ("Moscow", None, 1.5), ("Paris", HEAT, 35), ("Paris", None, None), (None, None, None)],
)
async def test_weather_stays_with_its_city_and_comes_with_another(
    database: Database, make: Factory, city: str | None, found: str | None, after: float | None
) -> None:
    ada = await make.user()
    task = await make.task(ada, city="Moscow", weather=SNOW)
    assert temperature(await update(database, ada.viewer, task, title="x", weather=HEAT)) == 1.5
    assert temperature(await update(database, ada.viewer, task, city=city, weather=found)) == after


async def test_a_list_holds_what_the_viewer_may_see(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    mine, his = await make.task(ada), await make.task(bob)
    assert await listed(database, ada.viewer) == [mine]
    assert await listed(database, root.viewer) == [mine, his]
    assert await listed(database, root.viewer, user_id=bob.id) == [his]
    assert await listed(database, ada.viewer, user_id=bob.id) == []
    assert await listed(database, NOBODY) == []


async def test_filters_leave_what_they_say(database: Database, make: Factory) -> None:
    ada = await make.user()
    noon = datetime(2025, 5, 24, 12, tzinfo=UTC)
    one = await make.task(ada, status="todo", city="Moscow", created_at=noon)
    two = await make.task(ada, status="done", city="Paris", created_at=noon + timedelta(microseconds=1))
    three = await make.task(ada, status="in_progress", created_at=noon + timedelta(days=1))
    assert await listed(database, ada.viewer, status=["todo", "done"]) == [one, two]
    assert await listed(database, ada.viewer, status=[]) == []
    assert await listed(database, ada.viewer, city="Paris") == [two]
    assert await listed(database, ada.viewer, city="paris") == []
    assert await listed(database, ada.viewer, created_from=noon) == [one, two, three]
    assert await listed(database, ada.viewer, created_from=noon + timedelta(microseconds=1)) == [two, three]
    assert await listed(database, ada.viewer, created_before=noon) == []
    assert await listed(database, ada.viewer, created_before=noon + timedelta(microseconds=1)) == [one]
    assert await listed(database, ada.viewer, status=["done"], city="Paris", created_from=noon) == [two]


@pytest.mark.parametrize("sort", list(q.tasks.list.texts))  # type: ignore[attr-defined]
async def test_pages_follow_one_another_in_the_order_of_the_sort(database: Database, make: Factory, sort: str) -> None:
    ada = await make.user()
    day = datetime(2025, 5, 24, tzinfo=UTC)
    for number, title in enumerate(["b", "a", "B", "b", "я", "Z", "a'\\", "a"]):
        await make.task(
            ada, title=title, status=["todo", "done"][number % 2], created_at=day - timedelta(days=number // 2)
        )
    column = sort.removeprefix("-")
    rows = await make.sql.fetch(f"select id, {column} as value from tasks")
    expected = sorted(((row["value"], row["id"]) for row in rows), reverse=sort.startswith("-"))
    assert await listed(database, ada.viewer, sort=sort) == [key for _, key in expected]
    assert await listed(database, ada.viewer, sort=sort, row_limit=3, row_offset=2) == [key for _, key in expected[2:5]]
    for index, (value, key) in enumerate(expected):
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        following = await listed(database, ada.viewer, sort=sort, after_value=text, after_id=key, row_limit=2)
        assert following == [key for _, key in expected[index + 1 : index + 3]]


async def test_exactly_one_of_many_writers_with_one_expected_version_writes(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    changed = await asyncio.gather(
        *(update(database, ada.viewer, task, versions=[1], title=f"writer {number}") for number in range(20))
    )
    assert Counter(one and one["verdict"] for one in changed) == {"ok": 1, "stale": 19}
    (winner,) = [one for one in changed if one and one["verdict"] == "ok"]
    assert await get(database, ada.viewer, task) == winner
    assert all(one and one["version"] == 2 for one in changed)


async def test_no_change_of_many_unguarded_writers_is_lost(database: Database, make: Factory) -> None:
    ada = await make.user()
    task = await make.task(ada)
    changed = await asyncio.gather(
        *(update(database, ada.viewer, task, title=f"writer {number}") for number in range(20)),
        *(update(database, ada.viewer, task, description=f"writer {number}") for number in range(20)),
    )
    assert sorted(one["version"] for one in changed if one) == list(range(2, 42))
    left = await get(database, ada.viewer, task)
    assert left
    assert left["version"] == 41
    assert left["title"].startswith("writer")
    assert left["description"].startswith("writer")


async def test_a_deletion_and_a_change_at_once_both_end_clearly(database: Database, make: Factory) -> None:
    ada = await make.user()
    tasks = [await make.task(ada) for _ in range(20)]

    async def race(task: int) -> tuple[Any, Any]:
        changed, deleted = await asyncio.gather(
            update(database, ada.viewer, task, versions=[1], title="changed"),
            delete(database, ada.viewer, task, versions=[1]),
        )
        return changed and changed["verdict"], deleted and deleted["verdict"]

    outcomes = set(await asyncio.gather(*(race(task) for task in tasks)))
    assert outcomes <= {("ok", "stale"), (None, "ok")}


async def test_a_change_that_waits_for_another_sees_its_result(database: Database, make: Factory) -> None:
    ada = await make.user()
    changed, deleted = await make.task(ada), await make.task(ada)
    async with make.sql.transaction():
        await make.sql.execute("update tasks set title = 'by a DBA' where id = $1", changed)
        await make.sql.execute("delete from tasks where id = $1", deleted)
        waiting = [
            asyncio.create_task(update(database, ada.viewer, changed, versions=[1], title="mine")),
            asyncio.create_task(update(database, ada.viewer, deleted, title="mine")),
            asyncio.create_task(delete(database, ada.viewer, deleted)),
        ]
        async with asyncio.timeout(10):
            while await make.sql.fetchval(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            ) < len(waiting):
                pass
    stale, *gone = await asyncio.gather(*waiting)
    assert stale
    assert (stale["verdict"], stale["version"], stale["title"]) == ("stale", 2, "by a DBA")
    assert gone == [None, None]
