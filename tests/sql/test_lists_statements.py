"""The forms of `tasks.list`: each returns, for any filters, sort and page, what Python finds among all tasks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from service.core.errors import ServiceError
from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from service.db.statements import Statement
from service.tasks import listing, schemas
from tests.support.factories import Factory

BOUND = "limit 3 * ($10::bigint + $11::bigint)"
DAY = datetime(2025, 5, 24, tzinfo=UTC)
DAYS = 8
PERIODS = [(a, b) for a in (None, *range(DAYS)) for b in (None, *range(DAYS + 1)) if (a, b) != (None, None)]

EVERYONES: dict[str, Any] = {
    **dict.fromkeys(("user_id", "status", "city", "after_value", "after_id")),
    "row_limit": 1000,
    "row_offset": 0,
}

Row = Mapping[str, Any]


def bounded(statement: Any, sort: str, bound: str) -> Any:
    """Return the statement with thresholds low enough for the number of tasks in a test."""
    assert isinstance(statement, Statement)
    assert BOUND in statement.texts[sort]
    return replace(statement, texts={sort: statement.texts[sort].replace(BOUND, bound or BOUND)})


def found(rows: list[Row], viewer: Viewer, sort: str, values: Mapping[str, Any]) -> list[int]:
    """Return the ids of a page, found the plain way."""
    descending, column = sort.startswith("-"), sort.removeprefix("-")

    def key(row: Row) -> Any:
        return (row[column], row["id"])

    after = None
    if values["after_id"] is not None:
        (after,) = [key(row) for row in rows if row["id"] == values["after_id"]]
    kept = [
        row
        for row in sorted(rows, key=key, reverse=descending)
        if (viewer.is_admin or row["user_id"] == viewer.id)
        and values["user_id"] in (None, row["user_id"])
        and (values["status"] is None or row["status"] in values["status"])
        and values["city"] in (None, row["city"])
        and (values["created_from"] is None or row["created_at"] >= values["created_from"])
        and (values["created_before"] is None or row["created_at"] < values["created_before"])
        and (after is None or (key(row) < after if descending else key(row) > after))
    ]
    begin = values["row_offset"]
    return [row["id"] for row in kept[begin : begin + values["row_limit"]]]


async def all_tasks(make: Factory) -> list[Row]:
    return [dict(row) for row in await make.sql.fetch("select * from tasks order by id")]


def position_after(row: Row | None, sort: str) -> dict[str, Any]:
    """Return the parameters of a page that starts after this row."""
    value = row and row[sort.removeprefix("-")]
    return {
        "after_value": value.isoformat() if isinstance(value, datetime) else value and str(value),
        "after_id": row and row["id"],
    }


def questions(rows: list[Row], viewers: list[Viewer], sorts: list[Any], *, number: int) -> Iterator[Any]:
    """Return so many viewers, sorts and values, the same in every run."""
    chance = random.Random(42)
    for _ in range(number):
        viewer, sort, after = chance.choice(viewers), chance.choice(sorts), chance.choice([None, chance.choice(rows)])
        first, last = chance.choice(PERIODS)
        yield (
            viewer,
            sort,
            {
                "user_id": chance.choice([None, None, viewers[-1].id]),
                "status": chance.choice([None, None, ["todo"], ["done", "in_progress"]]),
                "city": chance.choice([None, None, "Oslo", "Rome"]),
                "created_from": None if first is None else DAY + timedelta(days=first),
                "created_before": None if last is None else DAY + timedelta(days=last),
                **position_after(after, sort),
                "row_limit": chance.choice([1, 5, 21, 500]),
                "row_offset": chance.choice([0, 0, 1, 30]),
            },
        )


@pytest.fixture
async def viewers(make: Factory) -> list[Viewer]:
    """An administrator and two users, with some hundred tasks that have ties in every column but the id."""
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    chance = random.Random(7)
    times = [DAY + timedelta(hours=6 * chance.randrange(DAYS * 4)) for _ in range(300)]
    # Most ids go with the time, over blocks of 16,384.
    ids = [int((at - DAY).total_seconds()) // 3600 * 1000 + n for n, at in enumerate(times, start=1000)]
    ids[:3] = [-5, -(2**63), 2**63 - 1]
    await make.sql.executemany(
        "insert into tasks (id, user_id, title, status, city, created_at, updated_at)"
        " overriding system value values ($1, $2, $3, $4, $5, $6, $7)",
        [
            (
                number,
                chance.choice([ada.id, ada.id, bob.id]),
                chance.choice(["a", "B", "b", "я", "a'\\", ""]) + "x",
                chance.choice(["todo", "in_progress", "done"]),
                chance.choice([None, "Oslo", "Rome"]),
                at,
                at + timedelta(hours=chance.choice([0, 1, 30, 300])),
            )
            for number, at in zip(ids, times, strict=True)
        ],
    )
    return [root.viewer, bob.viewer, ada.viewer]


# Of the walk: all, as these tasks are few; some, so that its pages are short; none.
@pytest.mark.parametrize("bound", ["", "limit 40 --", "limit 0 --"])
async def test_a_page_of_a_period_is_what_it_is_among_all_tasks(
    database: Database, make: Factory, viewers: list[Viewer], bound: str
) -> None:
    rows = await all_tasks(make)
    sorts = list(q.tasks.list_period_by_title.texts)  # type: ignore[attr-defined]
    for viewer, sort, values in questions(rows, viewers, sorts, number=250):
        page = await bounded(q.tasks.list_period_by_title, sort, bound)(
            database, sort=sort, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, **values
        )
        assert [row["id"] for row in page] == found(rows, viewer, sort, values), (sort, values)


async def test_a_far_page_is_what_it_is_among_all_tasks(
    database: Database, make: Factory, viewers: list[Viewer]
) -> None:
    rows = await all_tasks(make)
    for viewer, sort, values in questions(rows, viewers, list(get_args(schemas.Sort)), number=250):
        bounds = await listing.fetch_bounds(database, sort.removeprefix("-"), values)
        page = await q.tasks.list_index_only(
            database, sort=sort, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, **values, **bounds
        )
        assert [row["id"] for row in page] == found(rows, viewer, sort, values), (sort, values)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_every_form_of_the_list_returns_the_same_page(
    database: Database, make: Factory, viewers: list[Viewer], analyzed: bool
) -> None:
    rows = await all_tasks(make)
    if analyzed:
        await make.sql.execute("analyze tasks")
    for viewer, sort, values in questions(rows, viewers, list(get_args(schemas.Sort)), number=250):
        arguments = {"viewer_id": viewer.id, "viewer_is_admin": viewer.is_admin, **values}
        page = [dict(row) for row in await listing.fetch_rows(database, sort=sort, **arguments)]
        assert page == [dict(row) for row in await q.tasks.list(database, sort=sort, **arguments)]
        if sort in ("title", "-title"):
            assert page == [dict(row) for row in await q.tasks.list_period_by_title(database, sort=sort, **arguments)]
        if sort.removeprefix("-") != "created_at":
            assert page == [dict(row) for row in await q.tasks.list_of_user(database, sort=sort, **arguments)]
        assert [row["id"] for row in page] == found(rows, viewer, sort, values), (sort, values)


@pytest.mark.parametrize("end", [-(2**63), 2**63 - 1])
@pytest.mark.parametrize("sort", get_args(schemas.Sort))
async def test_a_page_continues_after_the_first_and_last_possible_ids(
    database: Database, make: Factory, viewers: list[Viewer], sort: Any, end: int
) -> None:
    rows = await all_tasks(make)
    (row,) = [row for row in rows if row["id"] == end]
    values = {**EVERYONES, "created_from": None, "created_before": None, **position_after(row, sort)}
    page = await listing.fetch_rows(database, sort=sort, viewer_id=viewers[0].id, viewer_is_admin=True, **values)
    assert [row["id"] for row in page] == found(rows, viewers[0], sort, values)


async def test_the_bounds_of_a_period_contain_all_of_it_and_little_else(
    database: Database, make: Factory, viewers: list[Viewer]
) -> None:
    await make.sql.execute("delete from tasks where id not between 0 and 1000000")
    rows = await all_tasks(make)
    for first, last in PERIODS:
        arguments = {
            "created_from": None if first is None else DAY + timedelta(days=first),
            "created_before": None if last is None else DAY + timedelta(days=last),
        }
        lies = await q.tasks.period_bounds(database, **arguments)
        inside = found(rows, viewers[0], "id", {**EVERYONES, **arguments})
        if not inside:
            assert lies["first_id"] > lies["last_id"]
            assert lies["changed_from"] == lies["changed_before"]
            continue
        assert inside[0] - 16_384 < lies["first_id"] <= inside[0]
        assert inside[-1] + 16_384 > lies["last_id"] >= inside[-1]
        changes = [row["updated_at"] for row in rows if row["id"] in inside]
        week = timedelta(days=7)
        assert min(changes) - week < lies["changed_from"] <= min(changes)
        assert max(changes) + week >= lies["changed_before"] > max(changes)


async def test_a_period_at_the_end_of_the_calendar_has_bounds(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute(
        "insert into tasks (user_id, title, created_at, updated_at)"
        " values ($1, 'x', '9999-12-29', '9999-12-29 23:59:59.999999'), ($1, 'y', '0001-01-02', '0001-01-02')",
        ada.id,
    )
    lies = await q.tasks.period_bounds(database, created_from=None, created_before=None)
    assert lies["changed_from"] <= datetime(1, 1, 2, tzinfo=UTC)
    assert lies["changed_before"] > datetime(9999, 12, 29, 23, 59, 59, 999_999, tzinfo=UTC)


async def test_a_snapshot_sees_one_moment_and_changes_nothing(database: Database, make: Factory) -> None:
    ada = await make.user()
    async with database.snapshot() as moment:
        assert await q.tasks.period_bounds(moment, created_from=None, created_before=None)
        await make.task(ada)
        lies = await q.tasks.period_bounds(moment, created_from=None, created_before=None)
        assert lies["first_id"] > lies["last_id"]
        with pytest.raises(ServiceError):
            await q.accounts.expire_sessions(moment, row_limit=1)


async def test_a_statement_that_is_planned_each_time_has_no_parallel_workers(database: Database) -> None:
    async with database.snapshot() as moment:
        assert await moment.fetchval("select current_setting('plan_cache_mode')") == "force_custom_plan"
        assert await moment.fetchval("select current_setting('max_parallel_workers_per_gather')") == "0"


async def test_a_share_is_what_the_statistics_say(database: Database, make: Factory) -> None:
    ada = await make.user()

    async def share(first: int | None, last: int | None) -> float | None:
        period = [None if day is None else DAY + timedelta(days=day) for day in (first, last)]
        return await q.tasks.period_fraction(database, created_from=period[0], created_before=period[1])

    await make.sql.execute("delete from pg_statistic where starelid = 'tasks'::regclass")
    assert await share(0, None) is None
    await make.sql.execute(
        "insert into tasks (user_id, title, created_at)"
        " select $1, 'x', $2::timestamptz + n * interval '1 hour' from generate_series(0, 2399) n",
        ada.id,
        DAY,
    )
    await make.sql.execute("analyze tasks")
    for first, last, about in ((0, None, 1), (None, 25, 0.25), (90, None, 0.1), (20, 50, 0.3), (200, None, 0)):
        assert await share(first, last) == pytest.approx(about, abs=0.03)
