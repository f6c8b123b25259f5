"""The statement that makes many tasks: in their order, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from service.core.errors import InvalidError, UnauthorizedError
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

SNOW = b'{"condition":"Snow","temperature":1.5}'


async def create_many(db: Database, user_id: int, *tasks: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    return await q.tasks.create_many(
        db,
        user_id=user_id,
        titles=[one["title"] for one in tasks],
        descriptions=[one.get("description") for one in tasks],
        statuses=[one.get("status", "todo") for one in tasks],
        cities=[one.get("city") for one in tasks],
        weathers=[one.get("weather") for one in tasks],
    )


async def test_tasks_keep_the_values_and_the_order_sent(database: Database, make: Factory) -> None:
    ada = await make.user()
    sent: list[dict[str, Any]] = [
        {"title": "b", "description": 'a "quoted", {text}\\ \n', "status": "done", "city": "Oslo"},
        {"title": "NULL", "description": None, "status": "todo", "city": None},
        {"title": "a", "description": "", "status": "in_progress", "city": ""},
    ]
    found = [orjson.Fragment(SNOW), None, None]
    rows = await create_many(database, ada.id, *({**one, "weather": w} for one, w in zip(sent, found, strict=True)))
    assert [{name: row[name] for name in sent[0]} for row in rows] == sent
    assert [orjson.loads(orjson.dumps(row["weather"])) for row in rows] == [orjson.loads(SNOW), None, None]
    assert {(row["user_id"], row["version"]) for row in rows} == {(ada.id, 1)}
    kept = await make.sql.fetch("select * from task_view order by id")
    shown = [{**row, "weather": ""} for row in rows]
    assert [{**row, "weather": ""} for row in kept] == shown
    assert await make.sql.fetchval("select array_agg(weather_city order by id) from tasks") == ["Oslo", None, None]


async def test_ids_rise_in_the_order_of_a_thousand(database: Database, make: Factory) -> None:
    ada = await make.user()
    titles = [f"{number * 7919 % 1000}" for number in range(1000)]
    rows = await create_many(database, ada.id, *({"title": title} for title in titles))
    assert [row["title"] for row in rows] == titles
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})


async def test_each_task_has_an_event_that_names_the_actor(database: Database, make: Factory) -> None:
    ada = await make.user()
    rows = await create_many(database, ada.id, {"title": "one"}, {"title": "two"})
    events = await make.sql.fetch("select type, task_id, user_id, actor_id from task_events order by id")
    assert [tuple(event) for event in events] == [("task.created", row["id"], ada.id, ada.id) for row in rows]


@pytest.mark.parametrize(
    "bad", [{"title": " "}, {"status": "later"}, {"city": "x" * 101}, {"description": "x" * 10_001}]
)
async def test_one_invalid_task_rejects_all_tasks(database: Database, make: Factory, bad: dict[str, str]) -> None:
    ada = await make.user()
    with pytest.raises(InvalidError):
        await create_many(database, ada.id, {"title": "one"}, {"title": "two", **bad})
    assert await make.sql.fetchval("select count(*) from tasks") == 0
    assert await make.sql.fetchval("select count(*) from task_events") == 0


async def test_a_deleted_account_creates_no_tasks(database: Database, make: Factory) -> None:
    with pytest.raises(UnauthorizedError):
        await create_many(database, 1, {"title": "one"})
