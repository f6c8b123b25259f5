"""The statements of `sql/weather/`: claims of tasks without weather, and the tasks that a result fills."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import orjson
import pytest

from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SNOW = '{"temperature": 1.5, "condition": "Snow"}'


async def claim(db: Database, *, seconds: float = 60, row_limit: int = 100) -> list[str | None]:
    return [row["city"] for row in await q.weather.claim(db, seconds=seconds, row_limit=row_limit)]


async def fill(db: Database, city: str, text: str | None = SNOW, *, row_limit: int = 100) -> int:
    weather = None if text is None else orjson.Fragment(text)
    return await q.weather.fill(db, city=city, weather=weather, row_limit=row_limit)


async def filled(sql: Session, column: str = "weather is not null") -> list[Any]:
    return [row[0] for row in await sql.fetch(f"select {column} from tasks order by id")]


async def test_a_claim_has_what_misses_its_weather(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.task(ada)
    await make.task(ada, city="Moscow", weather=SNOW)
    await make.task(ada, city="Paris")
    changed = await make.task(ada, city="Berlin", weather=SNOW)
    await make.sql.execute("update tasks set city = 'Bonn' where id = $1", changed)
    assert sorted(map(str, await claim(database))) == ["Bonn", "Paris"]


async def test_a_claim_is_put_off_and_moves_no_version(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.task(ada, city="Moscow")
    before = await make.sql.fetchrow("select version, updated_at from tasks")
    assert await claim(database, seconds=60) == ["Moscow"]
    assert await claim(database) == []
    assert await make.sql.fetchval("select weather_due_at between now() and now() + interval '60 s' from tasks")
    await make.sql.execute("update tasks set weather_due_at = now()")
    assert await claim(database, seconds=0) == ["Moscow"]
    assert await claim(database) == ["Moscow"]
    assert await make.sql.fetchrow("select version, updated_at from tasks") == before


async def test_a_claim_takes_the_oldest_due_tasks_up_to_the_row_limit(database: Database, make: Factory) -> None:
    ada = await make.user()
    for city, minutes in (("new", 1), ("old", 3), ("middle", 2)):
        task = await make.task(ada, city=city)
        await make.sql.execute(
            "update tasks set weather_due_at = now() - $1 * interval '1 min' where id = $2", minutes, task
        )
    assert sorted(map(str, await claim(database, row_limit=2))) == ["middle", "old"]
    assert await claim(database, row_limit=2) == ["new"]


async def test_claims_at_once_are_disjoint(database: Database, make: Factory) -> None:
    ada = await make.user()
    cities = [f"City {number}" for number in range(100)]
    for city in cities:
        await make.task(ada, city=city)
    claims = await asyncio.gather(*(claim(database, row_limit=7) for _ in range(20)))
    assert all(len(one) <= 7 for one in claims)
    rest = await claim(database)
    assert sorted(str(city) for one in [*claims, rest] for city in one) == sorted(cities)


async def test_rows_locked_by_another_transaction_are_skipped(database: Database, make: Factory) -> None:
    ada = await make.user()
    locked = await make.task(ada, city="Moscow")
    await make.task(ada, city="Moscow")
    async with make.sql.transaction():
        await make.sql.execute("select from tasks where id = $1 for update", locked)
        assert await claim(database) == ["Moscow"]
        assert await fill(database, "Moscow") == 1
    assert await filled(make.sql) == [False, True]
    assert await claim(database) == ["Moscow"]
    assert await fill(database, "Moscow") == 1
    assert await filled(make.sql) == [True, True]


async def test_weather_is_written_to_the_tasks_of_its_city_without_weather(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.task(ada, city="Moscow", weather='{"temperature": 20, "condition": "Clear"}')
    await make.task(ada, city="Moscow")
    await make.task(ada, city="moscow")
    await make.task(ada)
    assert await fill(database, "Moscow") == 1
    assert await fill(database, "Moscow") == 0
    assert await filled(make.sql, "weather ->> 'condition'") == ["Clear", "Snow", None, None]
    assert await filled(make.sql, "version") == [1, 2, 1, 1]


async def test_no_more_are_filled_than_asked(database: Database, make: Factory) -> None:
    ada = await make.user()
    for _ in range(5):
        await make.task(ada, city="Moscow")
    assert [await fill(database, "Moscow", row_limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_an_unknown_city_is_due_again_after_a_day_and_changes_no_task(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.task(ada, city="Nowhere")
    before = await make.sql.fetchrow("select version, updated_at, weather from tasks")
    events = await make.sql.fetchval("select count(*) from task_events")
    assert await fill(database, "Nowhere", None) == 1
    assert await fill(database, "Nowhere", None) == 0
    assert await claim(database) == []
    due = "select round(extract(epoch from weather_due_at - now()) / 3600) from tasks"
    assert await make.sql.fetchval(due) == 24
    await make.sql.execute("update tasks set weather_due_at = now()")
    assert await claim(database) == ["Nowhere"]
    assert await make.sql.fetchrow("select version, updated_at, weather from tasks") == before
    assert await make.sql.fetchval("select count(*) from task_events") == events
    assert await fill(database, "Nowhere") == 1
    assert await filled(make.sql, "weather ->> 'condition'") == ["Snow"]


async def test_an_unknown_city_of_an_old_task_is_looked_up_less_often(database: Database, make: Factory) -> None:
    ada = await make.user()
    month_ago = datetime.now(UTC) - timedelta(days=30)
    await make.task(ada, city="Nowhere", created_at=month_ago, updated_at=month_ago)
    await fill(database, "Nowhere", None)
    assert await make.sql.fetchval("select round(extract(epoch from weather_due_at - now()) / 86400) from tasks") == 30


@pytest.mark.parametrize("before", [SNOW, None])
async def test_a_task_filled_once_misses_its_weather_again_in_another_city(
    database: Database, make: Factory, before: str | None
) -> None:
    await make.task(await make.user(), city="Moscow")
    assert await claim(database) == ["Moscow"]
    await fill(database, "Moscow", before)
    await make.sql.execute("update tasks set city = 'Paris'")
    assert await filled(make.sql) == [False]
    assert await claim(database) == ["Paris"]
