"""Lists of tasks: whose they show, filters, periods, totals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.factories import Factory, User
from tests.support.lists import NOON, STATUSES, TITLES, fill, ids, refused
from tests.support.problems import problem

# Filters


async def test_a_user_sees_own_tasks_and_an_administrator_all(make: Factory) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    adas, bobs = await make.task(ada), await make.task(bob)
    assert [await ids(user) for user in (ada, bob, admin)] == [[adas], [bobs], [adas, bobs]]


async def test_a_list_is_for_those_with_a_token(client: httpx.AsyncClient) -> None:
    problem(await client.get("/tasks"), 401)


async def test_the_owner_filter_is_allowed_to_viewers_of_those_tasks(make: Factory) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    adas = await make.task(ada)
    await make.task(bob)
    assert await ids(ada, user_id=ada.id) == await ids(admin, user_id=ada.id) == [adas]
    assert await ids(admin, user_id=admin.id) == await ids(admin, user_id=2**40) == []
    for user_id in (bob.id, admin.id, 2**40):
        problem(await ada.client.get("/tasks", params={"user_id": user_id}), 403)


async def test_statuses_and_city_narrow_a_list(make: Factory) -> None:
    ada = await make.user()
    made = {
        (status, city): await make.task(ada, status=status, city=city)
        for status in STATUSES
        for city in (None, "", "Oslo", "oslo")
    }
    assert await ids(ada, status="done") == [made["done", city] for city in (None, "", "Oslo", "oslo")]
    assert len(await ids(ada, status=["done", "todo"])) == 8
    assert len(await ids(ada, status=STATUSES)) == len(await ids(ada)) == 12
    assert await ids(ada, city="Oslo") == [made[status, "Oslo"] for status in STATUSES]
    assert await ids(ada, city="") == [made[status, ""] for status in STATUSES]
    assert await ids(ada, city="Oslo", status=["todo", "done"]) == [made["todo", "Oslo"], made["done", "Oslo"]]
    assert await ids(ada, city="O%") == []


US = timedelta(microseconds=1)
MIDNIGHT = datetime(2025, 5, 24, tzinfo=UTC)
DAY = timedelta(days=1)
MOMENTS = [MIDNIGHT - US, MIDNIGHT, NOON - US, NOON, NOON + US, MIDNIGHT + DAY - US, MIDNIGHT + DAY]


@pytest.mark.parametrize(
    ("period", "found"),
    [
        ({"start_date": "2025-05-24"}, MOMENTS[1:]),
        ({"end_date": "2025-05-24"}, MOMENTS[:6]),
        ({"start_date": "2025-05-24", "end_date": "2025-05-24"}, MOMENTS[1:6]),
        ({"start_date": "2025-05-24T12:00:00Z"}, MOMENTS[3:]),
        ({"end_date": "2025-05-24T12:00:00Z"}, MOMENTS[:4]),
        ({"start_date": "2025-05-24T12:00:00Z", "end_date": "2025-05-24T12:00:00Z"}, [NOON]),
        ({"start_date": "2025-05-24T12:00:00.000001Z"}, MOMENTS[4:]),
        ({"end_date": "2025-05-24T11:59:59.999999Z"}, MOMENTS[:3]),
        ({"start_date": "2025-05-24T15:00:00+03:00"}, MOMENTS[3:]),
        ({"end_date": "2025-05-24t07:00:00-05:00"}, MOMENTS[:4]),
        ({"start_date": "2025-05-24 12:00:00"}, MOMENTS[3:]),
        ({"start_date": "2025-05-24", "end_date": "2025-05-24T12:00:00Z"}, MOMENTS[1:4]),
        ({"start_date": "2025-05-25T02:00:00+02:00", "end_date": "2025-05-25"}, MOMENTS[6:]),
        ({"start_date": "0001-01-01", "end_date": "9999-12-31"}, MOMENTS),
        ({"start_date": "0001-01-01T00:00:00Z", "end_date": "9999-12-31T23:59:59.999999Z"}, MOMENTS),
        ({"start_date": "9999-12-31"}, []),
        ({"end_date": "0001-01-01"}, []),
        ({"start_date": "2024-02-29", "end_date": "2024-02-29"}, []),
    ],
    ids=str,
)
async def test_a_period_includes_both_its_ends(make: Factory, period: dict[str, str], found: list[datetime]) -> None:
    ada = await make.user()
    made = {moment: await make.task(ada, created_at=moment) for moment in MOMENTS}
    assert await ids(ada, **period) == [made[moment] for moment in found]
    summary = (await ada.client.get("/analytics", params=period)).json()
    assert summary["by_status"]["todo"] == len(found)


@pytest.mark.parametrize("path", ["/tasks", "/analytics"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2025-05-25", "2025-05-24"),
        ("2025-05-24T12:00:00.000001Z", "2025-05-24T12:00:00Z"),
        ("2025-05-24T12:00:00Z", "2025-05-24T13:00:00+02:00"),
        ("2025-05-25T00:00:00Z", "2025-05-24"),
        ("9999-12-31", "0001-01-01"),
    ],
)
async def test_a_period_that_ends_before_it_starts_is_refused(make: Factory, path: str, start: str, end: str) -> None:
    ada = await make.user()
    problem(await ada.client.get(path, params={"start_date": start, "end_date": end}), 422)


# Totals


async def test_a_total_is_counted_only_where_it_is_asked_for(make: Factory) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    tasks = await fill(make, ada)
    await make.task(bob)
    done = [task for task in tasks if task["status"] == "done"]

    async def total(user: User, **params: Any) -> Any:
        return (await user.client.get("/tasks", params={"limit": 1, **params})).json()["total"]

    assert await total(ada) is None
    assert await total(ada, count="none") is None
    assert await total(ada, count="exact") == len(TITLES)
    assert await total(ada, count="exact", offset=5) == len(TITLES)
    assert await total(ada, count="exact", status="done") == len(done)
    assert await total(ada, count="exact", start_date="2025-05-25") == 0
    assert await total(admin, count="exact") == len(TITLES) + 1
    assert await total(admin, count="exact", user_id=bob.id) == 1


async def test_an_estimated_total_is_near(make: Factory, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    for user, number in ((ada, 300), (bob, 700)):
        await sql.execute(
            "insert into tasks (user_id, title) select $1, 'task ' || n from generate_series(1, $2) n", user.id, number
        )
    await sql.execute("analyze tasks")
    cases: list[tuple[User, dict[str, Any], int]] = [
        (ada, {}, 300),
        (admin, {}, 1000),
        (admin, {"user_id": bob.id}, 700),
        (admin, {"status": "done"}, 1),
        (ada, {"sort": "title", "offset": 10}, 300),
    ]
    for user, params, about in cases:
        answer = await user.client.get("/tasks", params={"count": "estimated", "limit": 1, **params})
        total = answer.json()["total"]
        assert isinstance(total, int)
        assert about / 2 <= total <= about * 2


async def test_an_estimated_total_is_no_less_than_what_is_shown(
    make: Factory, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    ada = await make.user()
    await sql.execute("insert into tasks (user_id, title) select $1, 'x' from generate_series(1, 1000) n", ada.id)
    await sql.execute("analyze tasks")
    for n in range(30):
        await make.task(ada, city="Oslo", title=f"quokka {n}")
    for params in ({"city": "Oslo"}, {"q": "quokka"}):
        for more, least in (({}, 21), ({"offset": 20}, 30), ({"offset": 40}, 0)):
            answer = await ada.client.get("/tasks", params={"count": "estimated", **params, **more})
            assert least <= answer.json()["total"] < 100


async def test_a_total_holds_on_every_page(make: Factory) -> None:
    ada = await make.user()
    await fill(make, ada)
    first = (await ada.client.get("/tasks?limit=5&count=exact")).json()
    second = await ada.client.get("/tasks", params={"limit": 5, "count": "exact", "cursor": first["next_cursor"]})
    assert second.json()["total"] == first["total"] == len(TITLES)


# Parameters


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", ["0", "101", "-1", "", "1.5", "1e3", "NaN", "Infinity", "ten", "9" * 30, "0x10"]),
        ("offset", ["-1", "10001", "", "1.5", "9" * 30]),
        ("user_id", ["0", "-1", "", "1.5", "me", str(2**63), "9" * 5000]),
        ("sort", ["", "+id", "--id", "weather", "ID", "id,title"]),
        ("status", ["", "TODO", "todo,done"]),
        ("count", ["", "all", "true"]),
        ("city", ["x" * 101, "\0"]),
    ],
)
async def test_a_parameter_above_its_limit_is_refused(make: Factory, name: str, values: list[str]) -> None:
    ada = await make.user()
    for value in values:
        pointer = f"/query/{name}" + ("/0" if name == "status" else "")
        await refused(ada, pointer, **{name: value})


@pytest.mark.parametrize("params", [{"limit": 1}, {"limit": 100}, {"offset": 10_000}, {"user_id": 2**63 - 1}])
async def test_a_parameter_at_its_limit_is_accepted(make: Factory, params: Mapping[str, int]) -> None:
    assert (await (await make.admin()).client.get("/tasks", params=dict(params))).status_code == 200
