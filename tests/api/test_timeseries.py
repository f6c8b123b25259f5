"""Time series of created and completed tasks in buckets of a time zone."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.support.factories import Factory, User
from tests.support.problems import problem

MAY = datetime(2025, 5, 24, 12, tzinfo=UTC)
EMPTY = {"created": 0, "completed": 0, "hours_to_done_p50": None, "hours_to_done_p90": None}


async def buckets(user: User, **params: Any) -> Any:
    answer = await user.client.get("/analytics/timeseries", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["buckets"]


async def done(make: Factory, owner: User, created_at: datetime, hours: float) -> None:
    completed_at = created_at + timedelta(hours=hours)
    await make.task(owner, status="done", created_at=created_at, completed_at=completed_at)


async def test_every_bucket_of_the_period_is_there(make: Factory) -> None:
    ada = await make.user()
    await done(make, ada, MAY, 1)
    await done(make, ada, MAY, 2)
    await done(make, ada, MAY, 47)
    await make.task(ada, created_at=MAY + timedelta(days=1))
    assert await buckets(ada, start_date="2025-05-23", end_date="2025-05-26") == [
        {"start": "2025-05-23T00:00:00Z", **EMPTY},
        {
            "start": "2025-05-24T00:00:00Z",
            "created": 3,
            "completed": 2,
            "hours_to_done_p50": 1.5,
            "hours_to_done_p90": 1.9,
        },
        {"start": "2025-05-25T00:00:00Z", **EMPTY, "created": 1},
        {
            "start": "2025-05-26T00:00:00Z",
            "created": 0,
            "completed": 1,
            "hours_to_done_p50": 47.0,
            "hours_to_done_p90": 47.0,
        },
    ]


async def test_a_task_that_was_deleted_and_restored_counts_as_before(make: Factory) -> None:
    ada = await make.user()
    await done(make, ada, MAY, 20)
    before = await buckets(ada, start_date="2025-05-23")
    path = f"/tasks/{await make.sql.fetchval('select id from tasks')}"
    assert (await ada.client.delete(path)).status_code == 204
    assert await buckets(ada, start_date="2025-05-23") != before
    assert (await ada.client.post(f"{path}/restore")).status_code == 200
    assert await buckets(ada, start_date="2025-05-23") == before


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu"])
@pytest.mark.parametrize(("bucket", "days"), [("day", 3), ("week", 14), ("month", 70)])
async def test_counts_agree_with_python(make: Factory, tz: str, bucket: str, days: int) -> None:
    ada = await make.user()
    zone, chance = ZoneInfo(tz), random.Random(days)
    middle = datetime(2024, 10, 27, tzinfo=UTC) if tz == "Europe/Berlin" else datetime(2024, 11, 3, tzinfo=UTC)
    tasks = []
    for _ in range(120):
        created = middle + timedelta(minutes=chance.randint(-days * 1440, days * 1440))
        tasks.append((created, hours := chance.randint(0, 100) if chance.random() < 0.7 else None))
        if hours is None:
            await make.task(ada, created_at=created)
        else:
            await done(make, ada, created, hours)

    def start(moment: datetime) -> str:
        day = moment.astimezone(zone).date()
        if bucket == "week":
            day -= timedelta(days=day.weekday())
        if bucket == "month":
            day = day.replace(day=1)
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        return midnight.strftime("%Y-%m-%dT%H:%M:%SZ")

    found = await buckets(ada, bucket=bucket, tz=tz, end_date=(middle + timedelta(days=days + 6)).date().isoformat())
    assert found[0]["start"] == start(min(created for created, _ in tasks))
    starts = [one["start"] for one in found]
    assert starts == sorted(set(starts))
    for one in found:
        ended = [
            hours
            for created, hours in tasks
            if hours is not None and start(created + timedelta(hours=hours)) == one["start"]
        ]
        assert one["created"] == sum(start(created) == one["start"] for created, _ in tasks)
        assert one["completed"] == len(ended)
        assert one["hours_to_done_p50"] == (pytest.approx(median(ended)) if ended else None)
    assert sum(one["created"] for one in found) == 120
    assert sum(one["completed"] for one in found) == sum(hours is not None for _, hours in tasks)


async def test_a_date_is_that_day_in_the_zone_and_a_timestamp_is_exact(make: Factory) -> None:
    ada = await make.user()
    for hours in (-15, -14, 9, 10):  # the day in Tokyo begins at 15:00 of the day before
        await make.task(ada, created_at=datetime(2025, 5, 24, 5, tzinfo=UTC) + timedelta(hours=hours))
    day = {"start_date": "2025-05-24", "end_date": "2025-05-24", "tz": "Asia/Tokyo"}
    assert await buckets(ada, **day) == [{"start": "2025-05-23T15:00:00Z", **EMPTY, "created": 2}]
    hour = {"start_date": "2025-05-23T15:00:00.000001Z", "end_date": "2025-05-24T14:00:00Z", "tz": "Asia/Tokyo"}
    assert [one["created"] for one in await buckets(ada, **hour)] == [1]


async def test_an_open_period_spans_from_the_first_task_to_now(make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    now = datetime.now(UTC)
    await make.task(ada, created_at=now - timedelta(days=3))
    await make.task(bob, created_at=now - timedelta(days=30))
    assert len(await buckets(ada)) in {4, 5}  # midnight may pass
    assert len(await buckets(root)) in {31, 32}
    assert await buckets(root, user_id=ada.id) == await buckets(ada)
    assert (await buckets(ada))[0]["created"] == 1
    assert await buckets(root, user_id=root.id) == await buckets(ada, end_date="2020-01-01") == []
    assert await buckets(ada, start_date="9999-01-01") == []


async def test_a_user_sees_own_buckets_and_an_administrator_all(make: Factory, client: httpx.AsyncClient) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    for owner in (ada, bob, bob):
        await done(make, owner, MAY, 1)
    period = {"start_date": "2025-05-24", "end_date": "2025-05-24"}
    for viewer, params, number in ((ada, {}, 1), (root, {}, 3), (root, {"user_id": bob.id}, 2), (bob, {}, 2)):
        (one,) = await buckets(viewer, **period, **params)
        assert (one["created"], one["completed"]) == (number, number)
    problem(await ada.client.get("/analytics/timeseries", params={"user_id": bob.id}), 403)
    problem(await client.get("/analytics/timeseries"), 401)


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"bucket": "hour"}, "/query/bucket"),
        ({"tz": "Mars/Olympus"}, "/query/tz"),
        ({"tz": ""}, "/query/tz"),
        ({"tz": "../../etc/passwd"}, "/query/tz"),
        ({"tz": "america/new_york"}, "/query/tz"),
        ({"tz": "\0"}, "/query/tz"),
        ({"start_date": "2025-05-25", "end_date": "2025-05-24"}, "/query"),
        ({"start_date": "2025-05-24T00:00:00.000001Z", "end_date": "2025-05-24T00:00:00Z"}, "/query"),
        ({"start_date": "2025-05-25T00:00:00Z", "end_date": "2025-05-24"}, "/query"),
        ({"start_date": "2025-05-25", "end_date": "2025-05-24T15:59:59Z", "tz": "Asia/Shanghai"}, "/query"),
        ({"start_date": "2011-12-31", "end_date": "2011-12-30", "tz": "Pacific/Apia"}, "/query"),
        ({"start_date": "yesterday"}, "/query/start_date"),
        ({"start_date": "2020-01-01", "end_date": "2022-09-27"}, "/query/bucket"),
        ({"start_date": "0001-01-01"}, "/query/bucket"),
        ({"start_date": "0001-01-01", "tz": "Asia/Tokyo"}, "/query/bucket"),
        ({"user_id": "0"}, "/query/user_id"),
        ({"limit": "1"}, "/query/limit"),
    ],
    ids=str,
)
async def test_an_invalid_period_or_zone_is_refused(make: Factory, params: dict[str, str], pointer: str) -> None:
    ada = await make.user()
    problem(await ada.client.get("/analytics/timeseries", params=params), 422, pointers={pointer})


@pytest.mark.parametrize(
    ("period", "starts"),
    [
        ({"start_date": "0001-01-01", "end_date": "0001-01-01"}, ["0001-01-01T00:00:00Z"]),
        (
            {"start_date": "0001-01-01", "end_date": "0001-01-02", "tz": "Asia/Tokyo"},
            ["0001-01-01T00:00:00Z", "0001-01-01T14:41:01Z"],
        ),
        (
            {"start_date": "0001-01-01T00:00:00Z", "end_date": "0001-01-01", "tz": "America/New_York"},
            ["0001-01-01T04:56:02Z"],
        ),
        ({"start_date": "9999-11-01", "end_date": "9999-11-30", "bucket": "month"}, ["9999-11-01T00:00:00Z"]),
        ({"start_date": "9999-12-30", "end_date": "9999-12-31"}, ["9999-12-30T00:00:00Z", "9999-12-31T00:00:00Z"]),
        ({"start_date": "9999-12-31", "end_date": "9999-12-31T23:59:59.999999Z"}, ["9999-12-31T00:00:00Z"]),
        ({"start_date": "9999-12-31", "end_date": "9999-12-31", "bucket": "week"}, ["9999-12-27T00:00:00Z"]),
        ({"start_date": "9999-12-31", "end_date": "9999-12-31", "tz": "America/New_York"}, ["9999-12-31T05:00:00Z"]),
        (
            {"start_date": "9999-12-31T20:00:00Z", "end_date": "9999-12-31", "tz": "Asia/Tokyo"},
            ["9999-12-30T15:00:00Z"],
        ),
        ({"start_date": "2011-12-30", "end_date": "2011-12-30", "tz": "Pacific/Apia"}, []),
        ({"end_date": "9999-12-31"}, []),
    ],
    ids=str,
)
async def test_periods_reach_to_the_ends_of_the_calendar(
    make: Factory, period: dict[str, str], starts: list[str]
) -> None:
    assert await buckets(await make.user(), **period) == [{"start": start, **EMPTY} for start in starts]


async def test_a_thousand_buckets_are_returned(make: Factory) -> None:
    ada = await make.user()
    assert len(await buckets(ada, start_date="2020-01-01", end_date="2022-09-26")) == 1000


@pytest.mark.parametrize("path", ["/analytics", "/analytics/timeseries"])
async def test_reports_have_connections_of_their_own(make: Factory, path: str) -> None:
    ada = await make.user()
    await ada.client.get(path, params={"start_date": "2025-01-01", "end_date": "2025-01-02"})
    name = "summary" if path == "/analytics" else "timeseries"
    rows = await make.sql.fetch(
        "select application_name from pg_stat_activity where datname = current_database() and query like $1",
        f"%/* analytics.{name} */%",
    )
    assert {row["application_name"] for row in rows} == {"task-manager reports"}
    async with make.app.state.services.reports.connection() as connection:
        assert await connection.fetchval("show statement_timeout") == "30s"
