"""What the planner makes of the statements on a table that is large and skewed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from service import db, tasks
from service.accounts import LAST
from service.db import Connection, Database
from service.statements import Statement, read_all
from tests.conftest import TEMPLATE, _database, make_settings

STATEMENTS = {one.name: one for one in read_all()}
LISTS = [(name, sort) for name, one in STATEMENTS.items() for sort in one.header.sorts and one.texts]
# 30,000 tasks: a tenth of them one user's, the rest spread over 500; nearly all done; few with a city.
SEED = """
insert into users (username, password_hash, role)
select 'user' || n, '', case when n = 1 then 'admin' else 'user' end from generate_series(1, 500) as n;
insert into tasks (user_id, title, status, city, created_at, updated_at)
select
    u.ids[case when n % 10 = 0 then 2 else 1 + (n * 7919) % 500 end],
    md5(n::text),
    case when n % 50 = 0 then 'todo' when n % 51 = 0 then 'in_progress' else 'done' end,
    case when n % 11 = 0 then 'city' || n % 97 end,
    '2025-01-01Z'::timestamptz + n * interval '7 minutes',
    '2025-06-01Z'::timestamptz + (n * 7919) % 30000 * interval '7 minutes'
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;
update task_events set xid = (3 + id / 50)::text::xid8, previous_user_id = case when id % 100 = 0 then user_id - 1 end;
insert into idempotency_keys (user_id, route, key, fingerprint, holder, claimed_at, claimed_until)
select u.ids[n % 500 + 1], 'POST /tasks', n::text, '', '', now() - n * interval '10 seconds', now()
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;
insert into tickets (hash, user_id, expires_at, access_expires_at)
select sha256(n::text::bytea), u.ids[n % 500 + 1], now() - n * interval '1 second', now()
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;
insert into sessions (user_id, expires_at, secret, refresh_hash, previous_hash)
select
    u.ids[n % 500 + 1],
    now() + (n - 300) * interval '1 minute',
    sha256(n::text::bytea),
    sha256(sha256(n::text::bytea)),
    case when n % 2 = 0 then sha256(('before ' || n)::bytea) end
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;
insert into api_keys (user_id, name, hash, expires_at)
select u.ids[n % 500 + 1], 'key', sha256(n::text::bytea), case when n % 3 = 0 then now() + n * interval '1 minute' end
from generate_series(1, 30000) as n, (select array_agg(id order by id) as ids from users) as u;
insert into attachments (task_id, added_by, key, filename, content_type, size, sha256, created_at)
select
    t.id,
    t.user_id,
    repeat('a', 32) || '/' || md5(t.id::text),
    'a.txt',
    'text/plain',
    1,
    repeat('c', 64),
    now() - interval '2 hours'
from tasks as t;
insert into removed_attachments (key, task_id, attachment, with_task, claimed_until)
select repeat('b', 32) || '/' || md5(n::text), n, '{}', n % 2 = 0, now() + (n - 300) * interval '1 minute'
from generate_series(1, 30000) as n;
insert into users (username, password_hash) select 'Member' || n, '' from generate_series(1, 20000) as n;
"""
LARGE = (
    "tasks",
    "users",
    "task_events",
    "tickets",
    "sessions",
    "api_keys",
    "idempotency_keys",
    "attachments",
    "removed_attachments",
)
# A reader that has seen half of the events, while a transaction was open.
BEHIND = {
    "seen_snapshot": "301:303:301",
    "seen_id": 15_000,
    "after_id": 0,
    "byte_limit": 1_000_000,
    "hash": b"",
    "days": 90,
    "route": "POST /tasks",
    "key": "77",
    "fingerprint": b"",
    "holder": b"",
}
FILES: dict[str, Any] = {
    "attachment_id": 1000,
    "size": 1,
    "quota": 0,
    "after_key": "a" * 32 + "/00",
    "last_key": "a" * 32 + "/01",
    "keys": ["b" * 32 + "/00", "b" * 32 + "/01"],
    "has_turn": False,
}
CREDENTIALS: dict[str, Any] = {
    "session_id": 1000,
    "session_ids": [1000, 2000],
    "key_id": 1000,
    "key_ids": [1000, 2000],
    "refresh_token": b"",
    "known_hash": "",
    "most": 10,
    "name_from": "member7",
    "name_before": "member7" + LAST,
}
EVERYONE: dict[str, Any] = {
    "user_id": None,
    "status": None,
    "city": None,
    "created_from": None,
    "created_before": None,
    "row_limit": 21,
    "row_offset": 0,
    "sought": "task",
}
FIRST: dict[str, Any] = {"after_value": None, "after_id": None}


@pytest.fixture(scope="module")
async def large(module_database_url: str) -> AsyncIterator[Database]:
    """The pool on a database with many tasks."""
    settings = make_settings(module_database_url, database_pool_size=1, database_statement_timeout_ms=60_000)
    async with db.connected(module_database_url, settings) as database:
        async with database.connection() as connection:
            await connection.execute(SEED)
            for table in LARGE:
                await connection.execute(f"vacuum analyze {table}")
        yield database


@pytest.fixture(scope="module")
def module_database_url() -> Iterator[str]:
    """A migrated database of this file's own."""
    with _database(os.environ[TEMPLATE]) as url:
        yield url


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def explain(connection: Connection, statement: Statement, values: dict[str, Any], *, sort: str = "") -> Any:
    arguments = [values[parameter.name] for parameter in statement.header.params]
    plan = await connection.fetchval(f"explain (format json) {statement.texts[sort]}", *arguments)
    return list(nodes(orjson.loads(orjson.dumps(plan))[0]["Plan"]))


async def someone(connection: Connection, who: str) -> dict[str, Any]:
    name = {"admin": "user1", "busy user": "user2", "small user": "user77"}[who]
    user = await connection.fetchval("select id from users where username = $1", name)
    return {"viewer_id": user, "viewer_is_admin": who == "admin"}


@pytest.mark.parametrize("name", [name for name, one in STATEMENTS.items() if one.header.index])
async def test_the_index_of_a_header_is_the_one_that_is_used(large: Database, name: str) -> None:
    statement = STATEMENTS[name]
    async with large.connection() as connection:
        task = await connection.fetchrow("select id as task_id, user_id from tasks order by id desc offset 1 limit 1")
        assert task is not None
        values: dict[str, Any] = {parameter.name: None for parameter in statement.header.params}
        values |= {**dict(task), "viewer_id": task["user_id"], "viewer_is_admin": False, "username": "User77"}
        values |= {"city": "city10", "seconds": 20, "row_limit": 100, **BEHIND, **CREDENTIALS, **FILES}
        plan = await explain(connection, statement, values, sort=next(iter(statement.texts)))
    used = {node["Index Name"] for node in plan if "Index Name" in node}
    assert used == set(statement.header.index)
    assert not [node for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE]


def test_there_are_lists() -> None:
    assert len(LISTS) >= 10


@pytest.mark.parametrize("who", ["admin", "busy user", "small user"])
@pytest.mark.parametrize(("name", "sort"), [(name, sort) for name, sort in LISTS if name == "tasks.list"])
async def test_a_page_of_a_list_is_read_off_an_index(large: Database, name: str, sort: str, who: str) -> None:
    statement = STATEMENTS[name]
    column = sort.removeprefix("-")
    async with large.connection() as connection, connection.transaction():
        values = {**EVERYONE, **await someone(connection, who)}
        row = await connection.fetchrow(
            f"select {column} as value, id from tasks where $2 or user_id = $1 order by {column}, id"
            " offset (select count(*) / 2 from tasks where $2 or user_id = $1) limit 1",
            values["viewer_id"],
            values["viewer_is_admin"],
        )
        assert row is not None
        text = row["value"].isoformat() if isinstance(row["value"], datetime) else str(row["value"])
        if who == "small user":  # whose few tasks may as well be sorted, but whose index is there
            await connection.execute("set local enable_sort = off")
        for page in (FIRST, {"after_value": text, "after_id": row["id"]}):
            plan = await explain(connection, statement, {**values, **page}, sort=sort)
            used = " ".join(node.get("Index Cond", "") for node in plan)
            assert [node for node in plan if "Index Name" in node]
            assert not [node for node in plan if "Sort" in node["Node Type"] or node["Node Type"] == "Seq Scan"]
            assert "user_id = " in used or who != "small user"


@pytest.mark.parametrize("begin", [None, "member7", "m"])
@pytest.mark.parametrize("sort", STATEMENTS["accounts.list"].texts)
async def test_a_page_of_accounts_is_read_off_the_index_of_names(large: Database, sort: str, begin: str | None) -> None:
    statement = STATEMENTS["accounts.list"]
    names = {"name_from": begin, "name_before": begin and begin + LAST, "row_limit": 21}
    async with large.connection() as connection:
        row = await connection.fetchrow("select lower(username) as value, id from users where username = 'Member7777'")
        assert row is not None
        for page in (FIRST, {"after_value": row["value"], "after_id": row["id"]}):
            plan = await explain(connection, statement, {**names, **page}, sort=sort)
            (used,) = [node for node in plan if "Index Name" in node]
            assert used["Index Name"] == "users_username_key"
            conditions = used.get("Index Cond", "")
            assert conditions.count("lower(username) ") == 2 * (begin is not None) + (page is not FIRST)
            # Names are unique, so that an incremental sort by name and id sorts one row at a time.
            assert not [node for node in plan if node["Node Type"] in {"Sort", "Seq Scan"}]


@pytest.mark.parametrize("who", ["admin", "small user"])
async def test_a_rare_city_and_a_period_are_found_by_an_index(large: Database, who: str) -> None:
    statement = STATEMENTS["tasks.list"]
    start = datetime(2025, 3, 1, tzinfo=UTC)
    periods = {"created_from": start, "created_before": start + timedelta(days=1)}
    async with large.connection() as connection:
        values = {**EVERYONE, **FIRST, **await someone(connection, who)}
        for filters, index in (({"city": "city10"}, "tasks_city_idx"), (periods, "tasks_created_idx")):
            plan = await explain(connection, statement, {**values, **filters}, sort="-created_at")
            (used,) = [node for node in plan if "Index Name" in node]
            assert used["Index Name"] == index or (who != "admin" and "user_id = " in used["Index Cond"])
            assert "Index Cond" in used


@pytest.mark.parametrize("who", ["admin", "busy user"])
@pytest.mark.parametrize("sort", STATEMENTS["tasks.list_of_period"].texts)
async def test_a_period_in_another_order_is_read_off_its_own_index(large: Database, sort: str, who: str) -> None:
    async with large.connection() as connection:
        values = {
            **EVERYONE,
            **FIRST,
            **await someone(connection, who),
            "created_from": datetime(2025, 5, 20, tzinfo=UTC),
        }
        plan = await explain(connection, STATEMENTS["tasks.list_of_period"], values, sort=sort)
    (sought,) = [node for node in plan if node["Node Type"] == "Result" and "One-Time Filter" in node]
    used = {node["Index Name"]: node["Index Cond"] for node in nodes(sought) if "Index Name" in node}
    # Each of a user's indexes holds the period; which is read matters little for some thousand tasks.
    assert (
        used.keys() == {"tasks_created_idx"} if who == "admin" else all(name.startswith("tasks_user_") for name in used)
    )
    assert all("created_at >= " in condition for condition in used.values())
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("who", ["admin", "busy user"])
@pytest.mark.parametrize("sort", STATEMENTS["tasks.search"].texts)
async def test_a_rare_word_is_found_by_its_index(large: Database, sort: str, who: str) -> None:
    async with large.connection() as connection:
        word = await connection.fetchval("select title from tasks order by id desc limit 1")
        values = {**EVERYONE, **FIRST, **await someone(connection, who), "sought": word}
        plan = await explain(connection, STATEMENTS["tasks.search"], values, sort=sort)
    assert "tasks_words_idx" in {node.get("Index Name") for node in plan}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("sort", STATEMENTS["tasks.list_far"].texts)
async def test_what_is_in_the_way_is_read_off_the_index_alone(large: Database, sort: str) -> None:
    async with large.connection() as connection:
        values = {**EVERYONE, **FIRST, **await someone(connection, "admin"), "status": ["done"], "row_offset": 1000}
        plan = await explain(connection, STATEMENTS["tasks.list_far"], values, sort=sort)
    (limit,) = [node for node in plan if node["Node Type"] == "Limit"]
    assert [node["Node Type"] for node in nodes(limit)] == ["Limit", "Index Only Scan"]


NARROW, WIDE = ({"created_from": datetime(2025, month, 1, tzinfo=UTC)} for month in (5, 2))
FAR = {"row_offset": 5}


@pytest.mark.parametrize(
    ("sort", "chosen", "form"),
    [
        ("-created_at", {}, "tasks.list"),
        ("title", {}, "tasks.list"),
        ("created_at", NARROW, "tasks.list"),
        ("title", NARROW, "tasks.list_of_period"),
        ("-id", NARROW, "tasks.list_of_period"),
        ("-id", {**NARROW, **FAR}, "tasks.list_of_period"),
        ("-id", WIDE, "tasks.list_far"),
        ("-id", {**WIDE, **FAR}, "tasks.list_far"),
        ("-created_at", {**NARROW, **FAR}, "tasks.list_far"),
        ("title", {"sought": "x"}, "tasks.search"),
        ("-id", {**WIDE, **FAR, "sought": ""}, "tasks.search"),
    ],
)
async def test_each_list_is_read_by_the_form_for_it(
    large: Database, module_database_url: str, sort: Any, chosen: dict[str, Any], form: str
) -> None:
    async with large.connection() as connection:
        values = {**EVERYONE, **FIRST, **await someone(connection, "admin"), **chosen}
    fresh = await asyncpg.connect(module_database_url)
    try:
        await tasks.listed(fresh, sort=sort, **{**values, "sought": None, **chosen})
        prepared = await fresh.fetch("select statement from pg_prepared_statements")
    finally:
        await fresh.close()
    lists = [row["statement"] for row in prepared if row["statement"].startswith(("/* tasks.list", "/* tasks.search"))]
    assert [text.partition(" */")[0] for text in lists] == [f"/* {form} {sort}"]


@pytest.mark.parametrize(("name", "sort"), [(name, sort) for name, sort in LISTS if name != "accounts.list"])
async def test_no_mixture_of_calls_leads_a_list_to_a_generic_plan(large: Database, name: str, sort: str) -> None:
    statement = STATEMENTS[name]
    async with large.connection() as connection:
        viewers = [await someone(connection, who) for who in ("admin", "busy user", "small user")]
        filters: list[dict[str, Any]] = [
            {},
            {"status": ["todo"]},
            {"city": "city10"},
            {"created_from": datetime(2025, 3, 1, tzinfo=UTC)},
            {"user_id": viewers[1]["viewer_id"], "status": ["done", "todo"]},
        ]
        for number in range(50):
            given = {**EVERYONE, **FIRST, **viewers[number % 3], **filters[number % 5]}
            values = {one.name: given[one.name] for one in statement.header.params}
            await statement(connection, sort=sort, **values)
        assert await plans(connection, statement, sort) == (0, 50)


@pytest.mark.parametrize("sort", STATEMENTS["accounts.list"].texts)
async def test_no_mixture_of_names_leads_a_list_of_accounts_to_a_generic_plan(large: Database, sort: str) -> None:
    statement = STATEMENTS["accounts.list"]
    pages: list[dict[str, Any]] = [FIRST, {"after_value": "member7777", "after_id": 7777}]
    async with large.connection() as connection:
        for number in range(48):
            begin = [None, "member7", "u"][number % 3]
            names = {"name_from": begin, "name_before": begin and begin + LAST, "row_limit": 21}
            await statement(connection, sort=sort, **names, **pages[number % 2])
        assert await plans(connection, statement, sort) == (0, 48)


async def plans(connection: Connection, statement: Statement, sort: str) -> tuple[int, int]:
    """Give how many generic and how many custom plans a session has made of a statement."""
    row = await connection.fetchrow(
        "select sum(generic_plans) as generic, sum(custom_plans) as custom from pg_prepared_statements"
        " where statement = $1",
        statement.texts[sort],
    )
    assert row is not None
    return row["generic"], row["custom"]


async def test_a_generic_plan_finds_late_events_by_their_transaction(large: Database) -> None:
    """By the primary key it would pass all events there are, for each reader that comes back."""
    async with large.connection() as connection, connection.transaction():
        await connection.execute("set local plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare one as {STATEMENTS['events.page'].texts['']}")
        plan = await connection.fetchval(
            "explain (format json) execute one (0, true, '301:303:301', 15000, null, null, 0, 200, 100000, 0)"
        )
        await connection.execute("deallocate one")
    conditions = [
        (node["Index Name"], node["Index Cond"])
        for node in nodes(orjson.loads(orjson.dumps(plan))[0]["Plan"])
        if "Index Cond" in node
    ]
    assert [name for name, condition in conditions if "xid >=" in condition] == ["task_events_xid_idx"]
    assert not [name for name, condition in conditions if "id <= $4" in condition and name != "task_events_xid_idx"]
