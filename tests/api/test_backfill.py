"""Weather that a task misses is found in the table and filled in, by one replica, when the provider is back."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from service.core.settings import Settings
from service.db import pool
from service.db.pool import Database
from service.weather import backfill, circuit_breaker
from service.weather import client as weather
from service.weather.circuit_breaker import WeatherUnavailableError
from tests.support.factories import Factory, User
from tests.support.gates import gate
from tests.support.provider import NO_CITY, Provider, temperature
from tests.support.weather import BUDGET, Forecaster, Session, Start, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes as moments."""
    monkeypatch.setattr(backfill, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(backfill, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(circuit_breaker, "RECOVERY_SECONDS", 0.1)


async def tasks(sql: Session) -> list[tuple[Any, ...]]:
    """City, temperature and version of each, in the order in which they were made."""
    rows = await sql.fetch("select city, (weather ->> 'temperature')::float, version from tasks order by id")
    return [tuple(row) for row in rows]


async def until_tasks_are(sql: Session, *expected: tuple[Any, ...]) -> None:
    async def are() -> bool:
        return await tasks(sql) == list(expected)

    await until(are)


async def create(user: User, city: str) -> dict[str, Any]:
    answer = await user.client.post("/tasks", json={"title": "x", "city": city})
    assert answer.status_code == 201
    task: dict[str, Any] = answer.json()
    return task


@pytest.mark.parametrize("mode", ["fails", "hangs", "is not JSON"])
@pytest.mark.parametrize("others", [0, circuit_breaker.FAILURES])
async def test_missing_weather_is_there_once_the_provider_is_back(
    start: Start, provider: Provider, mode: str, others: int
) -> None:
    provider.mode = mode
    async with start(weather_timeout_seconds=BUDGET) as make:
        ada = await make.user()
        task = await create(ada, "Moscow")
        assert task["weather"] is None
        cities = [f"City {number}" for number in range(others)]
        for city in cities:
            await make.task(ada, city=city)

        async def circuit_is_open() -> bool:
            try:
                make.app.state.services.weather._circuit.check("moscow")
            except WeatherUnavailableError:
                return True
            return False

        await until(circuit_is_open)
        assert await tasks(make.sql) == [(city, None, 1) for city in ("Moscow", *cities)]
        provider.mode = "ok"
        await until_tasks_are(make.sql, *((city, temperature(city), 2) for city in ("Moscow", *cities)))
        after = (await ada.client.get(f"/tasks/{task['id']}")).json()
        assert after["weather"]["condition"] == "Clouds"
        assert after["updated_at"] > task["updated_at"]


async def test_no_city_comes_first_each_time(
    forecaster: Forecaster, provider: Provider, make: Factory, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those at which the provider fails would open the circuit for the others, again and again."""
    monkeypatch.setattr(backfill, "CITIES_AT_ONCE", 1)
    monkeypatch.setattr(circuit_breaker, "FAILURES", 10_000)
    provider.mode = "fails"
    ada = await make.user()
    for number in range(10):
        await make.task(ada, city=f"City {number}")
    async with forecaster() as client:
        for _ in range(10):
            await make.sql.execute("update tasks set weather_due_at = '-infinity'")
            await backfill.fill_batch(database, client)
    assert len(provider.calls) == 100
    assert len(set(provider.cities[::10])) > 1


async def test_a_round_ends_when_all_its_lookups_end(
    forecaster: Forecaster, provider: Provider, own_database_url: str, settings: Settings
) -> None:
    provider.mode = "late"
    provider.modes["Bad"] = "ok"
    sql = await asyncpg.connect(own_database_url)
    await sql.execute("""
        create function refuse() returns trigger language plpgsql as $$
        begin if new.weather is not null and new.city = 'Bad' then raise 'not today'; end if; return new; end $$;
        create trigger refuse before update on tasks for each row execute function refuse();
        insert into users (username, password_hash) values ('ada', '');
        insert into tasks (user_id, title, city) select id, 'x', unnest(array['Bad', 'Moscow', 'Paris']) from users;
    """)
    async with pool.connected(own_database_url, settings) as database, forecaster(weather_timeout_seconds=10) as client:
        with pytest.raises(Exception, match="The database refuses this value"):
            await backfill.fill_batch(database, client)
        others = [(city, temperature(city), 2) for city in ("Moscow", "Paris")]
        assert await tasks(sql) == [("Bad", None, 1), *others]
    await sql.close()


async def test_a_spelling_that_the_provider_does_not_know_marks_no_other(start: Start, provider: Provider) -> None:
    odd = "\N{FULLWIDTH LATIN CAPITAL LETTER P}aris"
    provider.modes[odd] = "no such city"
    async with start() as make:
        ada = await make.user()
        await make.task(ada, city=odd)

        async def marked() -> bool:
            return bool(await make.sql.fetchval("select weather_due_at > now() + interval '1 hour' from tasks"))

        await until(marked)
        await make.task(ada, city="Paris")
        await until_tasks_are(make.sql, (odd, None, 1), ("Paris", temperature("Paris"), 2))


async def test_missing_weather_is_found_after_a_restart(start: Start, provider: Provider) -> None:
    provider.mode = "fails"
    async with start() as make:
        await create(await make.user(), "Moscow")
    provider.mode = "ok"
    async with start() as make:
        await until_tasks_are(make.sql, ("Moscow", temperature("Moscow"), 2))


async def test_a_dbas_plain_insert_and_change_get_weather(start: Start) -> None:
    async with start() as make:
        ada = await make.user()
        await make.task(ada, city="Moscow")
        await until_tasks_are(make.sql, ("Moscow", temperature("Moscow"), 2))
        await make.sql.execute("update tasks set city = 'Paris'")
        await until_tasks_are(make.sql, ("Paris", temperature("Paris"), 4))


async def test_tasks_of_one_city_are_filled_by_one_call(start: Start, provider: Provider) -> None:
    async with start(weather_cache_seconds=0) as make:
        ada = await make.user()
        count = 1500
        assert count > max(backfill.CLAIM_ROWS, backfill.FILL_ROWS)
        await make.sql.execute(
            "insert into tasks (user_id, title, city) select $1, 'x', 'Moscow' from generate_series(1, $2)",
            ada.id,
            count,
        )

        async def filled() -> bool:
            return bool(await make.sql.fetchval("select bool_and(weather is not null) from tasks"))

        await until(filled)
        assert await make.sql.fetchval("select array_agg(distinct version) from tasks") == [2]
    assert provider.cities == ["Moscow"]


@pytest.mark.parametrize("mode", NO_CITY)
async def test_a_city_that_does_not_exist_is_asked_for_once_a_day(start: Start, provider: Provider, mode: str) -> None:
    provider.mode = mode
    async with start(weather_cache_seconds=0) as make:
        ada = await make.user()
        await make.task(ada, city="Nowhere")

        async def marked() -> bool:
            return bool(
                await make.sql.fetchval(
                    "select weather_due_at > now() + interval '1 hour' from tasks where city = 'Nowhere'"
                )
            )

        await until(marked)
        provider.mode = "ok"
        await make.task(ada, city="Moscow")
        await until_tasks_are(make.sql, ("Nowhere", None, 1), ("Moscow", temperature("Moscow"), 2))
        assert provider.cities == ["Nowhere", "Moscow"]
        await make.sql.execute("update tasks set weather_due_at = now() where city = 'Nowhere'")
        await until_tasks_are(make.sql, ("Nowhere", temperature("Nowhere"), 2), ("Moscow", temperature("Moscow"), 2))


@pytest.mark.parametrize("city", ["", " \n"])
async def test_a_blank_city_is_marked_without_a_call(start: Start, provider: Provider, city: str) -> None:
    async with start() as make:
        await make.task(await make.user(), city=city)

        async def marked() -> bool:
            return bool(await make.sql.fetchval("select weather_due_at > now() + interval '1 hour' from tasks"))

        await until(marked)
        assert await tasks(make.sql) == [(city, None, 1)]
    assert provider.calls == []


async def test_lookups_of_many_cities_do_not_count_as_failures(
    start: Start, provider: Provider, json_log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they exceed the timeout of one lookup: 100 lookups of 0.1 s each, 6 at once, against 1.5 s."""
    monkeypatch.setattr(backfill, "CITIES_AT_ONCE", 6)
    monkeypatch.setattr(weather, "MAX_CALLS", 6)
    provider.mode = "late"
    async with start(weather_timeout_seconds=1.5) as make:
        ada = await make.user()
        await make.sql.execute(
            "insert into tasks (user_id, title, city) select $1, 'x', 'City ' || n from generate_series(1, 100) as n",
            ada.id,
        )

        async def filled() -> bool:
            return bool(await make.sql.fetchval("select bool_and(weather is not null) from tasks"))

        await until(filled)
    assert not [line for line in json_log if "circuit" in line]


async def test_two_applications_at_once_ask_for_each_city_once(
    start: Start, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Redis, which would hide that both claim the same."""
    monkeypatch.setattr(backfill, "CLAIM_ROWS", 3)
    monkeypatch.setattr(backfill, "RETRY_SECONDS", 60)
    provider.mode = "late"
    cities = [f"City {number}" for number in range(60)]
    async with start(weather_timeout_seconds=10) as make, start(weather_timeout_seconds=10):
        ada = await make.user()
        await make.sql.executemany(
            "insert into tasks (user_id, title, city) values ($1, 'x', $2)", [(ada.id, city) for city in cities]
        )
        await until_tasks_are(make.sql, *((city, temperature(city), 2) for city in cities))
    assert sorted(provider.cities) == sorted(cities)


async def test_a_locked_task_is_not_waited_for_and_filled_later(start: Start, make: Factory, database_url: str) -> None:
    ada = await make.user()
    await make.task(ada, city="Moscow")
    other = await asyncpg.connect(database_url)
    locked = other.transaction()
    await locked.start()
    await other.execute("select from tasks for update")
    async with start():
        await make.task(ada, city="Moscow")
        await make.task(ada, city="Paris")
        others = (("Moscow", temperature("Moscow"), 2), ("Paris", temperature("Paris"), 2))
        await until_tasks_are(make.sql, ("Moscow", None, 1), *others)
        await locked.rollback()
        await until_tasks_are(make.sql, ("Moscow", temperature("Moscow"), 2), *others)
    await other.close()


async def test_a_city_changed_during_the_lookup_does_not_get_the_weather_of_the_old_city(
    start: Start, provider: Provider
) -> None:
    provider.mode = "held"
    async with start(weather_timeout_seconds=20) as make:
        await make.task(await make.user(), city="Moscow")

        async def asked() -> bool:
            return "Moscow" in provider.cities

        await until(asked)
        await make.sql.execute("update tasks set city = 'Paris'")
        provider.released.set()
        await until_tasks_are(make.sql, ("Paris", temperature("Paris"), 3))


async def test_the_loop_continues_after_a_database_outage(
    start: Start, json_log: list[str], own_database_url: str
) -> None:
    async with gate(own_database_url) as door, start(database_url=door.url):
        await door.shut("refused")

        async def noticed() -> bool:
            return any("weather backfill failed" in line for line in json_log)

        await until(noticed)
        await door.open()
        sql = await asyncpg.connect(own_database_url)
        await sql.execute("insert into users (username, password_hash) values ('ada', '')")
        await sql.execute("insert into tasks (user_id, title, city) select id, 'x', 'Moscow' from users")
        await until_tasks_are(sql, ("Moscow", temperature("Moscow"), 2))
        await sql.close()


async def test_a_round_that_fails_for_whatever_reason_is_not_the_last_one(
    start: Start, json_log: list[str], own_database_url: str
) -> None:
    sql = await asyncpg.connect(own_database_url)
    await sql.execute("""
        create function refuse() returns trigger language plpgsql as $$ begin raise 'not today'; end $$;
        create trigger refuse before update on tasks for each row execute function refuse();
        insert into users (username, password_hash) values ('ada', '');
        insert into tasks (user_id, title, city) select id, 'x', 'Moscow' from users;
    """)
    async with start(database_url=own_database_url):

        async def noticed() -> bool:
            return any("weather backfill failed" in line and "not today" in line for line in json_log)

        await until(noticed)
        await sql.execute("drop trigger refuse on tasks")
        await until_tasks_are(sql, ("Moscow", temperature("Moscow"), 2))
    await sql.close()


@pytest.mark.parametrize("key", ["", "a key"])
async def test_the_loop_runs_where_there_is_a_key(start: Start, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    began = asyncio.Event()

    async def run(*_: object) -> None:
        began.set()

    monkeypatch.setattr(backfill, "run", run)
    async with start(openweather_api_key=key) as make:
        await create(await make.user(), "Moscow")
        assert began.is_set() is bool(key)
