"""Pages of a list: their order, that they are whole, and what a cursor is good for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.factories import Factory
from tests.support.lists import NOON, SORTS, STATUSES, TITLES, fill, ids, in_order, read, refused, walk

# Order and pages


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_of_every_size_are_in_order_and_whole(make: Factory, sort: str) -> None:
    ada, bob, admin = await make.user(), await make.user(), await make.admin()
    tasks = await fill(make, ada)
    await make.task(bob, title="b")
    assert await ids(ada, sort=sort) == in_order(tasks, sort)
    for limit in (1, 2, 5, len(TITLES)):
        assert [task["id"] async for page in walk(ada, sort=sort, limit=limit) for task in page] == in_order(
            tasks, sort
        )
    everyones = [read(task) async for page in walk(admin, sort=sort, limit=4) for task in page]
    assert [task["id"] for task in everyones] == in_order(everyones, sort)
    assert len(everyones) == len(TITLES) + 1


async def test_the_newest_come_first_and_twenty_at_a_time(make: Factory) -> None:
    ada = await make.user()
    made = [await make.task(ada) for _ in range(21)]
    page = (await ada.client.get("/tasks")).json()
    assert page.keys() == {"items", "next_cursor", "total"}
    assert [task["id"] for task in page["items"]] == made[:0:-1]
    assert page["items"][0] == (await ada.client.get(f"/tasks/{made[-1]}")).json()


async def test_the_last_page_has_no_cursor_even_where_it_is_full(make: Factory) -> None:
    ada = await make.user()
    assert [page async for page in walk(ada, limit=2)] == [[]]
    for _ in range(4):
        await make.task(ada)
    assert [len(page) async for page in walk(ada, limit=2)] == [2, 2]
    assert "Link" not in (await ada.client.get("/tasks", params={"limit": 4})).headers


@pytest.mark.parametrize("sort", SORTS)
async def test_tasks_created_and_deleted_between_pages_shift_no_other_task(
    make: Factory, sql: asyncpg.Connection[asyncpg.Record], sort: str
) -> None:
    ada = await make.user()
    tasks = await fill(make, ada)
    expected = in_order(tasks, sort)
    pages = walk(ada, sort=sort, limit=4)
    seen = [task["id"] for task in await anext(pages)]
    # The row that the cursor stands on goes, one before it and one behind it; new ones come before, at and behind it.
    gone = [seen[3], seen[0], expected[6]]
    await sql.execute("delete from tasks where id = any ($1)", gone)
    for task in (tasks[0], tasks[8], tasks[-1]):
        await make.task(ada, **{name: task[name] for name in ("title", "status", "created_at", "updated_at")})
    seen += [task["id"] async for page in pages for task in page]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in expected] == [one for one in expected if one != expected[6]]


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=3),
            st.sampled_from(STATUSES),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    sort=st.sampled_from(SORTS),
    limit=st.integers(1, 5),
    wanted=st.sets(st.sampled_from(STATUSES)),
)
async def test_pages_agree_with_python(
    make: Factory,
    rows: list[tuple[str, str, int, int]],
    sort: str,
    limit: int,
    wanted: set[str],
) -> None:
    await make.sql.execute("delete from tasks; delete from users")
    ada = await make.user()
    tasks = []
    for title, status, created, updated in rows:
        columns: dict[str, Any] = {"title": f"x{title}", "status": status}
        columns |= {"created_at": NOON + timedelta(days=created), "updated_at": NOON + timedelta(hours=updated)}
        tasks.append({"id": await make.task(ada, **columns), **columns})
    kept = [task for task in tasks if not wanted or task["status"] in wanted]
    filters = {"status": sorted(wanted)} if wanted else {}
    assert [task["id"] async for page in walk(ada, sort=sort, limit=limit, **filters) for task in page] == in_order(
        kept, sort
    )


async def test_an_offset_skips_that_many(make: Factory) -> None:
    ada = await make.user()
    expected = in_order(await fill(make, ada), "title")
    for offset in (0, 1, len(expected) - 1, len(expected), 10_000):
        assert await ids(ada, sort="title", offset=offset) == expected[offset:]


async def test_an_offset_does_not_go_with_a_cursor(make: Factory) -> None:
    ada = await make.user()
    await fill(make, ada)
    cursor = (await ada.client.get("/tasks?limit=1")).json()["next_cursor"]
    for offset in (0, 1):
        await refused(ada, "/query/offset", limit=1, cursor=cursor, offset=offset)


# Cursors


async def test_a_link_leads_to_the_next_page(make: Factory) -> None:
    ada = await make.user()
    tasks = await fill(make, ada)
    city = "Санкт-Петербург & <b>"
    await make.sql.execute("update tasks set city = $1", city)
    expected = in_order([task for task in tasks if task["status"] != "done"], "title")
    params: dict[str, Any] = {"status": ["todo", "in_progress"], "sort": "title", "city": city, "limit": 3, "offset": 2}
    answer, seen = await ada.client.get("/tasks", params=params), expected[:2]
    while link := answer.links.get("next"):
        seen += [task["id"] for task in answer.json()["items"]]
        answer = await ada.client.get(link["url"])
        assert answer.status_code == 200
    seen += [task["id"] for task in answer.json()["items"]]
    assert seen == expected


BASE = {"sort": "title", "status": ["todo", "done"], "start_date": "2025-05-24", "end_date": "2026-01-01"}


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "-title"},
        {"sort": "id"},
        {"status": "todo"},
        {"status": STATUSES},
        {"city": "Oslo"},
        {"start_date": "2025-05-23"},
        {"start_date": ""},
        {"end_date": "2026-01-02"},
        {"user_id": 0},
    ],
    ids=str,
)
async def test_a_cursor_of_another_list_is_refused(make: Factory, other: dict[str, Any]) -> None:
    ada = await make.user()
    await fill(make, ada)
    cursor = (await ada.client.get("/tasks", params=BASE | {"limit": 1})).json()["next_cursor"]
    other = {name: ada.id if name == "user_id" else value for name, value in other.items()}
    changed = {name: value for name, value in {**BASE, **other}.items() if value != ""}
    await refused(ada, "/query/cursor", **changed, cursor=cursor)


async def test_a_cursor_of_another_viewer_is_refused(make: Factory) -> None:
    ada, admin, other = await make.user(), await make.admin(), await make.admin()
    await fill(make, ada)
    cursors = [(await user.client.get("/tasks?limit=1")).json()["next_cursor"] for user in (ada, admin)]
    await refused(admin, "/query/cursor", cursor=cursors[0])
    await refused(ada, "/query/cursor", cursor=cursors[1])
    await refused(other, "/query/cursor", cursor=cursors[1])


async def test_a_cursor_holds_with_another_limit_count_and_order_of_statuses(make: Factory) -> None:
    ada = await make.user()
    await fill(make, ada)
    cursor = (await ada.client.get("/tasks", params=BASE | {"limit": 1})).json()["next_cursor"]
    params = BASE | {"cursor": cursor, "limit": 50, "count": "exact", "status": ["done", "todo", "done"]}
    assert (await ada.client.get("/tasks", params=params)).status_code == 200


@pytest.mark.parametrize("sort", ["id", "title", "-created_at"])
async def test_a_cursor_that_was_tampered_with_is_refused(make: Factory, sort: str) -> None:
    ada = await make.user()
    await fill(make, ada)
    cursor = (await ada.client.get("/tasks", params={"sort": sort, "limit": 1})).json()["next_cursor"]
    middle = len(cursor) // 2
    flipped = "A" if cursor[middle] != "A" else "B"
    for forged in (
        "",
        "x",
        "null",
        "é🦊",
        "%00",
        "\0",
        "A" * 2000,
        "A" * 2001,
        cursor[:-4],
        cursor[4:],
        cursor + "AAAA",
        cursor[:middle] + flipped + cursor[middle + 1 :],
    ):
        await refused(ada, "/query/cursor", sort=sort, cursor=forged)
