"""`q` of a list of tasks: full text beside every other filter, sort and page."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from service.api.routes import tasks
from tests.support.factories import Factory, User
from tests.support.lists import NOON, SORTS, ids, in_order, read, refused, walk
from tests.support.problems import problem


async def fill(make: Factory, owner: User) -> list[int]:
    """Make twelve tasks, of which every second one has a report, and return the ids of those."""
    made = [
        await make.task(
            owner,
            title=f"{'Plan' if n % 2 else 'Report'} {n % 5}",
            status=["todo", "in_progress", "done"][n % 3],
            city=["Oslo", None][n % 4 // 2],
            created_at=NOON + timedelta(days=n),
            updated_at=NOON + timedelta(days=20 + n * 5 % 7),
        )
        for n in range(12)
    ]
    return made[::2]


async def test_a_search_returns_the_tasks_that_contain_its_words(make: Factory) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    found = await fill(make, ada)
    bobs = await make.task(bob, title="x", description="A report of his own")
    assert await ids(ada, q="reports") == await ids(admin, q="reports", user_id=ada.id) == found
    assert await ids(bob, q="reports") == [bobs]
    assert await ids(admin, q="reports") == [*found, bobs]
    problem(await ada.client.get("/tasks", params={"q": "x", "user_id": bob.id}), 403)
    task = (await bob.client.get("/tasks", params={"q": "own"})).json()["items"]
    assert task == [(await bob.client.get(f"/tasks/{bobs}")).json()]


async def test_one_users_searches_leave_connections_to_others(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, bob, searches = await make.user(), await make.user(), make.app.state.services.searches
    monkeypatch.setattr(tasks, "SEARCH_SLOT_TIMEOUT_SECONDS", 0.05)
    with ExitStack() as stack:
        for _ in range(4):  # of ten connections
            assert (await ada.client.get("/tasks", params={"q": "x"})).status_code == 200
            stack.enter_context(searches.slot(ada.id))
        problem(await ada.client.get("/tasks", params={"q": "x"}), 503)
        assert (await ada.client.get("/tasks")).status_code == 200
        assert (await bob.client.get("/tasks", params={"q": "x"})).status_code == 200
    assert (await ada.client.get("/tasks", params={"q": "x"})).status_code == 200


async def test_all_searches_leave_connections_to_others(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, searches = await make.user(), make.app.state.services.searches
    monkeypatch.setattr(tasks, "SEARCH_SLOT_TIMEOUT_SECONDS", 0.05)
    with ExitStack() as stack:
        for other in range(8):  # of ten connections
            stack.enter_context(searches.slot(-1 - other))
        problem(await ada.client.get("/tasks", params={"q": "x"}), 503)
        assert (await ada.client.get("/tasks")).status_code == 200


async def test_a_search_combines_with_every_filter(make: Factory) -> None:
    ada = await make.user()
    found = await fill(make, ada)
    assert await ids(ada, q="report", status=["todo", "done"]) == [found[n] for n in (0, 1, 3, 4)]
    assert await ids(ada, q="report", city="Oslo") == [found[n] for n in (0, 2, 4)]
    assert await ids(ada, q="report", start_date="2025-05-28", end_date="2025-06-01") == found[2:5]
    assert await ids(ada, q="report", offset=4) == found[4:]
    assert await ids(ada, q="report 4") == [found[2]]


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_of_a_search_are_in_order_and_whole(make: Factory, sort: str) -> None:
    ada = await make.user()
    await fill(make, ada)
    tasks = [read(task) for task in (await ada.client.get("/tasks?limit=100")).json()["items"]]
    expected = in_order([task for task in tasks if "Report" in task["title"]], sort)
    for limit in (1, 4, 6):
        assert [task["id"] async for page in walk(ada, sort=sort, limit=limit, q="report") for task in page] == expected


async def test_a_search_without_words_finds_nothing(make: Factory) -> None:
    ada = await make.user()
    await fill(make, ada)
    for q in ("", " ", "!?", "--", "🦊"):
        page = (await ada.client.get("/tasks", params={"q": q, "count": "exact"})).json()
        assert page == {"items": [], "next_cursor": None, "total": 0}


async def test_a_cursor_is_bound_to_what_is_sought(make: Factory) -> None:
    ada = await make.user()
    await fill(make, ada)
    cursors = {
        q: (await ada.client.get("/tasks", params={"limit": 1, **({} if q is None else {"q": q})})).json()[
            "next_cursor"
        ]
        for q in (None, "report", "plan")
    }
    assert None not in cursors.values()
    for q, cursor in cursors.items():
        for other in {"report", "reports", ""} - {q}:
            await refused(ada, "/query/cursor", q=other, cursor=cursor)
        if q is not None:
            await refused(ada, "/query/cursor", cursor=cursor)


async def test_search_results_are_counted_and_estimated(make: Factory, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    for user, number in ((ada, 300), (bob, 700)):
        await sql.execute(
            "insert into tasks (user_id, title)"
            " select $1, case when n % 4 = 0 then 'report ' else 'plan ' end || n from generate_series(1, $2) n",
            user.id,
            number,
        )
    await sql.execute("analyze tasks, task_search")
    cases: list[tuple[User, dict[str, Any], int]] = [
        (ada, {}, 75),
        (admin, {}, 250),
        (admin, {"user_id": bob.id}, 175),
        (ada, {"sort": "title", "offset": 10}, 75),
    ]
    for user, params, number in cases:
        for count, low, high in (("exact", 1.0, 1.0), ("estimated", 0.5, 2.0)):
            answer = await user.client.get("/tasks", params={"q": "reports", "count": count, "limit": 1, **params})
            assert number * low <= answer.json()["total"] <= number * high


@pytest.mark.parametrize("q", ["\0", "a\0b", "x" * 10_001])
async def test_a_text_that_cannot_be_kept_cannot_be_sought(make: Factory, q: str) -> None:
    await refused(await make.user(), "/query/q", q=q)
