"""Lists, pages and changes of tasks, compared with a model in plain Python."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.factories import Factory, User
from tests.support.lists import NOON, SORTS, STATUSES, Tasks, in_order, read, walk
from tests.support.problems import problem

against_a_model = settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TITLES = ["a", "B", "b", "é", "Z", "🦊"]
WORDS = ["zebra", "quokka", "tapir"]  # no stem of one is a stem of another
CITIES = ["Oslo", "oslo", "Łódź", None]
MOMENTS = [NOON + timedelta(days=days, microseconds=more) for days in (0, 1) for more in (-1, 0, 1)]


# Pages while tasks come and go

rows = st.fixed_dictionaries(
    {
        "title": st.sampled_from(TITLES),
        "status": st.sampled_from(STATUSES),
        "created_at": st.sampled_from(MOMENTS),
        "updated_at": st.sampled_from(MOMENTS),
    }
)
between_pages = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), rows),
        st.tuples(st.just("delete"), st.integers(0, 30)),
        st.tuples(st.just("elsewhere"), st.integers(0, 30)),
    ),
    max_size=4,
)


@against_a_model
@given(
    first=st.lists(rows, min_size=1, max_size=12),
    sort=st.sampled_from(SORTS),
    limit=st.integers(1, 4),
    wanted=st.sets(st.sampled_from(STATUSES), max_size=2),
    pauses=st.lists(between_pages, max_size=8),
)
async def test_tasks_that_stay_are_listed_once_and_in_order_during_other_changes(
    make: Factory, *, first: Tasks, sort: str, limit: int, wanted: set[str], pauses: list[list[tuple[str, Any]]]
) -> None:
    await make.sql.execute("delete from tasks")
    ada = await make.user()
    tasks = [one | {"id": await make.task(ada, **one)} for one in first]
    stays = {task["id"]: task for task in tasks}
    filters = {"status": sorted(wanted)} if wanted else {}
    seen: list[int] = []
    pauses_left = iter(pauses)
    answer: dict[str, Any] = {"next_cursor": ""}
    while answer["next_cursor"] is not None:  # the last page may be empty: what was to be on it has gone meanwhile
        cursor = {"cursor": answer["next_cursor"]} if answer["next_cursor"] else {}
        params: dict[str, Any] = {"sort": sort, "limit": limit, **filters, **cursor}
        answer = (await ada.client.get("/tasks", params=params)).raise_for_status().json()
        seen += [task["id"] for task in answer["items"]]
        for what, value in next(pauses_left, []):
            if what == "insert":
                tasks.append(value | {"id": await make.task(ada, **value)})
            elif what == "delete":
                gone = tasks[value % len(tasks)]["id"]
                stays.pop(gone, None)
                await make.sql.execute("delete from tasks where id = $1", gone)
            else:  # of a column that neither sorts nor filters
                changed = tasks[value % len(tasks)]["id"]
                if sort.removeprefix("-") != "updated_at":
                    await make.sql.execute("update tasks set description = 'x' where id = $1", changed)
    assert len(seen) == len(set(seen))
    expected = in_order([task for task in stays.values() if not wanted or task["status"] in wanted], sort)
    assert [one for one in seen if one in stays] == expected
    every = {task["id"]: task for task in tasks}
    if sort.removeprefix("-") != "updated_at":
        assert seen == in_order([every[one] for one in seen], sort)


@pytest.mark.parametrize("sort", ["-created_at", "title", "id"])
async def test_writers_beside_a_reader_neither_hide_nor_repeat_a_task(
    make: Factory, sql: asyncpg.Connection[asyncpg.Record], sort: str
) -> None:
    ada = await make.user()
    stays = {await make.task(ada, title=f"stays {n % 7}", created_at=NOON + timedelta(hours=n)) for n in range(60)}
    over = asyncio.Event()

    async def write() -> None:
        existing: deque[int] = deque()
        for n in itertools.count():
            if over.is_set():
                return
            existing.append(await make.task(ada, title=f"stays {n % 7}", created_at=NOON + timedelta(hours=n % 60)))
            if len(existing) > 20:
                await sql.execute("delete from tasks where id = $1", existing.popleft())

    writing = asyncio.create_task(write())
    for _ in range(3):
        seen = [task["id"] async for page in walk(ada, sort=sort, limit=3) for task in page]
        assert len(seen) == len(set(seen))
        assert stays <= set(seen)
    over.set()
    await writing


# Filters


@dataclass(frozen=True)
class Filter:
    """A choice of filters, and which tasks it leaves."""

    params: dict[str, Any]
    leaves: Callable[[dict[str, Any]], bool]


def _text(moment: date | datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _from(value: date | datetime) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


def _until(value: date | datetime) -> datetime:
    """Return the last included timestamp."""
    return value if isinstance(value, datetime) else _from(value) + timedelta(days=1, microseconds=-1)


filters = st.one_of(
    st.sets(st.sampled_from(STATUSES), min_size=1).map(
        lambda some: Filter({"status": sorted(some)}, lambda task: task["status"] in some)
    ),
    st.sampled_from([*CITIES[:3], "Bergen", ""]).map(
        lambda city: Filter({"city": city}, lambda task: task["city"] == city)
    ),
    st.sampled_from([*MOMENTS, *(moment.date() for moment in MOMENTS)]).map(
        lambda value: Filter({"start_date": _text(value)}, lambda task: task["created_at"] >= _from(value))
    ),
    st.sampled_from([*MOMENTS, *(moment.date() for moment in MOMENTS)]).map(
        lambda value: Filter({"end_date": _text(value)}, lambda task: task["created_at"] <= _until(value))
    ),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(
        lambda words: Filter(
            {"q": " ".join(words)}, lambda task: set(words) <= {*task["title"].split(), *task["description"].split()}
        )
    ),
    st.sampled_from(["ada", "bob"]).map(lambda name: Filter({"user_id": name}, lambda task: task["owner"] == name)),
)


ONE = {"owner": "ada", "title": "zebra", "description": "", "city": "Oslo"}
AT_EACH_MOMENT = [ONE | {"status": STATUSES[n % 3], "created_at": moment} for n, moment in enumerate(MOMENTS)]


@against_a_model
@given(
    more=st.lists(
        st.fixed_dictionaries(
            {
                "owner": st.sampled_from(["ada", "bob"]),
                "title": st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(" ".join),
                "description": st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join),
                "status": st.sampled_from(STATUSES),
                "city": st.sampled_from(CITIES),
                "created_at": st.sampled_from(MOMENTS),
            }
        ),
        max_size=6,
    ),
    chosen=st.lists(filters, max_size=2, unique_by=lambda one: next(iter(one.params))),
    who=st.sampled_from(["ada", "root"]),
    sort=st.sampled_from(SORTS),
    limit=st.integers(1, 5),
)
async def test_every_choice_of_filters_leaves_what_python_leaves(
    make: Factory, *, more: Tasks, chosen: list[Filter], who: str, sort: str, limit: int
) -> None:
    await make.sql.execute("delete from tasks")
    users = {"ada": await make.user(), "bob": await make.user(), "root": await make.admin()}
    tasks = []
    for one in [*AT_EACH_MOMENT, *more]:
        columns = {name: value for name, value in one.items() if name != "owner"}
        tasks.append(one | {"id": await make.task(users[one["owner"]], **columns, updated_at=one["created_at"])})
    params: dict[str, Any] = {name: value for one in chosen for name, value in one.params.items()}
    named = params.get("user_id")
    if named:
        params["user_id"] = users[named].id
    viewer = users[who]
    if who == "ada" and named == "bob":
        problem(await viewer.client.get("/tasks", params=params), 403)
        return
    period = [_from(date.fromisoformat(params[name][:10])) for name in ("start_date", "end_date") if name in params]
    answer = await viewer.client.get("/tasks", params=params | {"count": "exact"})
    if period == sorted(period, reverse=True) and answer.status_code == 422:
        problem(answer, 422)
        assert len(period) == 2
        return
    visible = [task for task in tasks if who == "root" or task["owner"] == "ada"]
    left = [task | {"updated_at": task["created_at"]} for task in visible if all(one.leaves(task) for one in chosen)]
    pages = [page async for page in walk(viewer, sort=sort, limit=limit, **params)]
    assert [task["id"] for page in pages for task in page] == in_order(left, sort)
    assert answer.json()["total"] == len(left)
    exported = await viewer.client.get("/tasks/export", params=params)
    assert [orjson.loads(line)["id"] for line in exported.content.splitlines()] == in_order(left, "id")


# Changes

values: dict[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from(["x", "Prepare Report", "y" * 100, "é🦊"]),
    "description": st.sampled_from([None, "", "Collect monthly data", "two\nlines", "z" * 10_000]),
    "status": st.sampled_from(STATUSES),
    "city": st.sampled_from([None, "Oslo", ""]),
}
wrong: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"title": None},
        {"title": " "},
        {"title": "x" * 101},
        {"status": None},
        {"status": "later"},
        {"description": {}},
        {"description": ["x"]},
        {"city": 1},
        {"city": "x" * 101},
        {"version": 1},
        {"weather": None},
        {"id": 1},
        {"": None},
    ]
)
patches: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=values)
replacements = patches.flatmap(lambda sent: values["title"].map(lambda title: sent | {"title": title}))
steps = st.one_of(
    st.tuples(st.just("PATCH"), patches, st.just(True)),
    st.tuples(st.just("PATCH"), st.tuples(patches, wrong).map(lambda two: two[0] | two[1]), st.just(False)),
    st.tuples(st.just("PUT"), replacements, st.just(True)),
    st.tuples(st.just("PUT"), st.tuples(replacements, wrong).map(lambda two: two[0] | two[1]), st.just(False)),
)
guards = st.sampled_from(["", "*", "present", "weak", "another", "one of two"])
CLEARED = {"description": None, "status": "todo", "city": None}


def guard(kind: str, version: int) -> dict[str, str]:
    texts = {
        "*": "*",
        "present": f'"{version}"',
        "weak": f'W/"{version}"',
        "another": f'"{version + 1}"',
        "one of two": f'"{version + 1}", "{version}"',
    }
    return {"If-Match": texts[kind]} if kind else {}


async def task_of(user: User, task: int) -> dict[str, Any]:
    return read((await user.client.get(f"/tasks/{task}")).raise_for_status().json())


@against_a_model
@given(changes=st.lists(st.tuples(steps, guards), max_size=8))
@example(changes=[(("PATCH", {}, True), ""), (("PATCH", {"description": None}, True), "present")])
async def test_changes_do_what_a_merge_patch_and_a_replacement_do_in_python(
    make: Factory, changes: list[tuple[tuple[str, dict[str, Any], bool], str]]
) -> None:
    await make.sql.execute("delete from tasks")
    ada = await make.user()
    number = await make.task(ada, title="first", description="kept", city="Bergen")
    model = await task_of(ada, number)
    events = 1
    for (method, sent, good), kind in changes:
        answer = await ada.client.request(method, f"/tasks/{number}", json=sent, headers=guard(kind, model["version"]))
        present = await task_of(ada, number)
        if not good:
            problem(answer, 422)
        elif kind in {"weak", "another"}:
            problem(answer, 412)
            assert answer.headers["ETag"] == f'"{model["version"]}"'
        else:
            assert read(answer.json()) == present
            after = model | (CLEARED if method == "PUT" else {}) | sent
            if after != model:
                assert present["updated_at"] >= model["updated_at"]
                after |= {"version": model["version"] + 1, "updated_at": present["updated_at"]}
                events += 1
            model = after
        assert present == model
    history = (await ada.client.get(f"/tasks/{number}/history", params={"limit": 100})).json()["items"]
    assert len(history) == events
    for event in history:
        assert all(before != after for before, after in event.get("changes", {}).values())
