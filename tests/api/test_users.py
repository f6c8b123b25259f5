"""Administration: the list of accounts, and what an administrator changes of them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NAMES = ["ada", "Bob", "carol", "DAN", "a.b", "a-b", "a_b", "a0b", "zoe", "Zed", "...", "ADAM", "adamant", "ad_", "0ad"]


async def fill(sql: Sql, names: list[str]) -> None:
    await sql.executemany("insert into users (username, password_hash) values ($1, 'x')", [(name,) for name in names])


async def walk(admin: User, **params: Any) -> list[list[str]]:
    """Return the usernames of each page, in order."""
    pages: list[list[str]] = []
    for _ in itertools.repeat(None, 200):
        answer = await admin.client.get("/users", params=params)
        assert answer.status_code == 200, answer.text
        pages.append([one["username"] for one in answer.json()["items"]])
        if answer.json()["next_cursor"] is None:
            assert "Link" not in answer.headers
            return pages
        assert len(pages[-1]) == params["limit"]
        params["cursor"] = answer.json()["next_cursor"]
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("sort", ["username", "-username"])
@pytest.mark.parametrize("limit", [1, 4, 16, 100])
async def test_pages_list_every_account_once_and_in_order(make: Factory, sql: Sql, sort: str, limit: int) -> None:
    admin = await make.user(username="root", role="admin")
    await fill(sql, NAMES)
    pages = await walk(admin, sort=sort, limit=limit)
    expected = sorted([*NAMES, "root"], key=str.lower, reverse=sort.startswith("-"))
    assert list(itertools.chain(*pages)) == expected


@pytest.mark.parametrize("sort", ["username", "-username"])
async def test_accounts_created_while_pages_are_read_shift_no_page(make: Factory, sql: Sql, sort: str) -> None:
    admin = await make.user(username="root", role="admin")
    names = [f"user-{n:03}" for n in range(0, 100, 2)]
    await fill(sql, names)
    over = asyncio.Event()

    async def come() -> None:
        for n in itertools.count(1, 2):
            if over.is_set():
                return
            await fill(sql, [f"user-{n % 100:03}-{n}", f"a-{n}", f"z-{n}"])

    async with asyncio.TaskGroup() as group:
        group.create_task(come())
        seen = list(itertools.chain(*await walk(admin, sort=sort, limit=7)))
        over.set()
    assert [name for name in seen if name in names] == sorted(names, reverse=sort.startswith("-"))
    assert len(seen) == len(set(seen))


async def test_the_next_page_is_linked(make: Factory, sql: Sql) -> None:
    admin = await make.user(username="root", role="admin")
    await fill(sql, NAMES)
    first = await admin.client.get("/users?limit=3&q=a&sort=-username")
    link = first.headers["Link"]
    assert link.endswith('>; rel="next"')
    second = await admin.client.get(link[1:].partition(">")[0])
    assert [one["username"] for one in first.json()["items"] + second.json()["items"]] == (
        sorted((name for name in NAMES if name[0].lower() == "a"), key=str.lower, reverse=True)[:6]
    )


@pytest.mark.parametrize("begin", ["a", "AD", "ad_", "a.", "a-", "A_", "adamant", "z", ".", "0", "x", "", "A" * 50])
async def test_a_search_finds_how_names_begin_without_regard_to_case(make: Factory, sql: Sql, begin: str) -> None:
    admin = await make.user(username="root", role="admin")
    await fill(sql, NAMES)
    found = list(itertools.chain(*await walk(admin, q=begin, limit=2)))
    names = [*NAMES, "root"]
    assert found == sorted((name for name in names if name.lower().startswith(begin.lower())), key=str.lower)


BAD = ["sort=id", "sort=", "limit=0", "limit=101", "limit=x", "q=%25", "q=a%20b", "q=%C3%A9", "q=" + "a" * 51]
BAD += ["cursor=", "cursor=x", "cursor=%00", "cursor=" + "A" * 2001, "cursor=" + "A" * 60, "page=2"]


@pytest.mark.parametrize("query", BAD, ids=lambda query: query[:20])
async def test_invalid_parameters_are_refused(make: Factory, query: str) -> None:
    admin = await make.admin()
    name = query.partition("=")[0]
    answer = await admin.client.get(f"/users?{query}")
    if query == "cursor=":
        assert answer.status_code == 200  # as if it were not there
    else:
        problem(answer, 422, pointers={f"/query/{name}"})


async def test_a_cursor_of_another_list_is_refused(make: Factory, sql: Sql) -> None:
    admin = await make.admin()
    await fill(sql, NAMES)
    await make.task(admin)
    await make.task(admin)
    users = (await admin.client.get("/users?limit=1")).json()["next_cursor"]
    tasks = (await admin.client.get("/tasks?limit=1")).json()["next_cursor"]
    for query in (f"sort=-username&cursor={users}", f"q=a&cursor={users}", f"cursor={tasks}", f"cursor={users}x"):
        problem(await admin.client.get(f"/users?{query}"), 422, pointers={"/query/cursor"})
    assert (await admin.client.get(f"/users?limit=5&cursor={users}")).status_code == 200


# One account


async def test_an_account_is_shown_to_administrators(make: Factory) -> None:
    admin, ada = await make.admin(), await make.user()
    shown = (await admin.client.get(f"/users/{ada.id}")).json()
    assert shown.keys() == {"id", "username", "role", "created_at", "active"}
    assert (shown["username"], shown["role"], shown["active"]) == (ada.username, "user", True)
    for path in ("/users", f"/users/{ada.id}", f"/users/{admin.id}"):
        problem(await ada.client.get(path), 403)
    problem(await ada.client.patch(f"/users/{ada.id}", json={"role": "admin"}), 403)
    for method in ("GET", "PATCH"):
        problem(await admin.client.request(method, f"/users/{2**63 - 1}", json={}), 404)


@pytest.mark.parametrize(
    ("change", "role", "active"),
    [
        ({}, "user", True),
        ({"role": "user"}, "user", True),
        ({"active": True}, "user", True),
        ({"role": "admin"}, "admin", True),
        ({"active": False}, "user", False),
        ({"role": "admin", "active": False}, "admin", False),
    ],
)
async def test_only_the_fields_sent_are_changed(make: Factory, change: dict[str, Any], role: str, active: bool) -> None:
    admin, ada = await make.admin(), await make.user()
    before = (await admin.client.get(f"/users/{ada.id}")).json()
    changed = await admin.client.patch(f"/users/{ada.id}", json=change)
    assert changed.status_code == 200
    assert changed.json() == before | {"role": role, "active": active}
    assert (await admin.client.get(f"/users/{ada.id}")).json() == changed.json()
    assert (await ada.client.get("/auth/me")).status_code == (200 if active else 401)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"role": None}, "/role"),
        ({"role": "root"}, "/role"),
        ({"active": None}, "/active"),
        ({"active": "no"}, "/active"),
        ({"active": 0}, "/active"),
        ({"username": "eve"}, "/username"),
    ],
    ids=str,
)
async def test_an_invalid_change_is_refused(make: Factory, change: dict[str, Any], pointer: str) -> None:
    admin, ada = await make.admin(), await make.user()
    problem(await admin.client.patch(f"/users/{ada.id}", json=change), 422, pointers={pointer})
    assert (await ada.client.get("/auth/me")).status_code == 200


@pytest.mark.parametrize("change", [{"role": "user"}, {"active": False}])
async def test_the_last_active_administrator_stays(make: Factory, change: dict[str, Any]) -> None:
    admin, other = await make.admin(), await make.admin()
    assert (await admin.client.patch(f"/users/{other.id}", json={"active": False})).status_code == 200
    refused = await admin.client.patch(f"/users/{admin.id}", json=change)
    assert problem(refused, 409)["code"] == "conflict"
    assert (await admin.client.get(f"/users/{admin.id}")).json()["active"] is True
    assert (await admin.client.patch(f"/users/{other.id}", json={"active": True})).status_code == 200
    assert (await admin.client.patch(f"/users/{admin.id}", json=change)).status_code == 200


async def test_one_of_two_administrators_who_demote_each_other_stays(make: Factory, sql: Sql) -> None:
    for _ in range(5):
        ada, bob = await make.admin(), await make.admin()
        await sql.execute("update users set role = 'user' where id <> all($1)", [ada.id, bob.id])
        answers = await asyncio.gather(
            ada.client.patch(f"/users/{bob.id}", json={"role": "user"}),
            bob.client.patch(f"/users/{ada.id}", json={"active": False}),
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses in ([200, 409], [200, 401], [200, 403])
        assert await sql.fetchval("select count(*) from users where role = 'admin' and active") == 1


async def test_an_inactive_user_can_do_nothing_and_logs_in_again_after_reactivation(
    make: Factory, client: httpx.AsyncClient
) -> None:
    admin, ada = await make.admin(), await make.user()
    task = await make.task(ada)
    credentials = {"username": ada.username, "password": PASSWORD}
    tokens = (await client.post("/auth/login", json=credentials)).json()
    ticket = (await ada.client.post("/auth/ticket")).json()["ticket"]
    await admin.client.patch(f"/users/{ada.id}", json={"active": False})
    problem(await ada.client.get("/auth/me"), 401)
    problem(await client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}), 401)
    problem(await client.post("/auth/login", json=credentials), 401)
    problem(await client.get(f"/events?ticket={ticket}"), 401)
    assert (await admin.client.get(f"/tasks/{task}")).status_code == 200
    await admin.client.patch(f"/users/{ada.id}", json={"active": True})
    problem(await ada.client.get("/auth/me"), 401)  # sessions are over
    assert (await client.post("/auth/login", json=credentials)).status_code == 200
