"""What the planner makes of lists and events on a large, skewed table; the rest is in test_headers_plans.py."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from service.accounts.users import AFTER_USERNAMES
from service.db import pool
from service.db.pool import Connection, Database
from service.db.statements import Statement, read_all
from service.tasks import listing
from tests.conftest import make_settings

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
alter table attachments disable trigger attachments_change_task;
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
alter table attachments enable trigger attachments_change_task;
insert into removed_attachments (key, task_id, attachment, with_task, claimed_until)
select repeat('b', 32) || '/' || md5(n::text), n, '{}', n % 2 = 0, now() + (n - 300) * interval '1 minute'
from generate_series(1, 30000) as n;
insert into users (username, password_hash) select 'Member' || n, '' from generate_series(1, 20000) as n;
"""
LARGE = (
    "tasks",
    "task_search",
    "users",
    "task_events",
    "tickets",
    "sessions",
    "api_keys",
    "idempotency_keys",
    "attachments",
    "removed_attachments",
)
ALL_TASKS_VIEWER: dict[str, Any] = {
    "user_id": None,
    "status": None,
    "city": None,
    "created_from": None,
    "created_before": None,
    "row_limit": 21,
    "row_offset": 0,
    "sought": "task",
    **listing.NO_BOUNDS,
    "within_period": False,
    "walk_limit": 1063,
}
FIRST: dict[str, Any] = {"after_value": None, "after_id": None}


@pytest.fixture(scope="module")
async def large(module_database_url: str) -> AsyncIterator[Database]:
    """The pool on a database with many tasks."""
    settings = make_settings(module_database_url, database_pool_size=1, database_statement_timeout_ms=60_000)
    async with pool.connected(module_database_url, settings) as database:
        async with database.connection() as connection:
            await connection.execute("set lock_timeout = 0")  # autovacuum may be at work on the same table
            await connection.execute(SEED)
            for table in LARGE:
                await connection.execute(f"vacuum analyze {table}")
        yield database


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return every node of a plan."""
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


def test_there_are_lists() -> None:
    assert len(LISTS) >= 10


@pytest.mark.parametrize(
    ("sort", "who"),
    [
        (sort, who)
        for sort in STATEMENTS["tasks.list"].texts
        for who in ("admin", "busy user", "small user")
        if who != "small user" or "created_at" in sort  # tasks.list_of_user is for the others
    ],
)
async def test_a_page_of_a_list_is_read_off_an_index(large: Database, sort: str, who: str) -> None:
    statement = STATEMENTS["tasks.list"]
    column = sort.removeprefix("-")
    async with large.connection() as connection, connection.transaction():
        values = {**ALL_TASKS_VIEWER, **await someone(connection, who)}
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


@pytest.mark.parametrize("who", ["busy user", "small user"])
@pytest.mark.parametrize("sort", STATEMENTS["tasks.list_of_user"].texts)
async def test_a_page_of_a_users_tasks_is_sorted_from_one_index(large: Database, sort: str, who: str) -> None:
    filters = {"status": ["done"], "created_from": datetime(2025, 2, 1, tzinfo=UTC)}
    async with large.connection() as connection:
        for chosen in ({}, filters):
            values = {**ALL_TASKS_VIEWER, **FIRST, **await someone(connection, who), **chosen}
            plan = await explain(connection, STATEMENTS["tasks.list_of_user"], values, sort=sort)
            (used,) = [node for node in plan if node.get("Index Name", "tasks_pkey") != "tasks_pkey"]
            # Of some thousand tasks a bitmap scan is as cheap as an index-only scan, which sql/plans/ shows.
            assert used["Index Name"] == "tasks_user_created_idx"
            assert "user_id = " in used["Index Cond"]
            assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("begin", [None, "member7", "m"])
@pytest.mark.parametrize("sort", STATEMENTS["accounts.list"].texts)
async def test_a_page_of_accounts_is_read_off_the_index_of_names(large: Database, sort: str, begin: str | None) -> None:
    statement = STATEMENTS["accounts.list"]
    names = {"name_from": begin, "name_before": begin and begin + AFTER_USERNAMES, "row_limit": 21}
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
        values = {**ALL_TASKS_VIEWER, **FIRST, **await someone(connection, who)}
        for filters, index in (({"city": "city10"}, "tasks_city_idx"), (periods, "tasks_created_idx")):
            plan = await explain(connection, statement, {**values, **filters}, sort="-created_at")
            (used,) = [node for node in plan if "Index Name" in node]
            assert used["Index Name"] == index or (who != "admin" and "user_id = " in used["Index Cond"])
            assert "Index Cond" in used


@pytest.mark.parametrize("sort", STATEMENTS["tasks.list_period_by_title"].texts)
async def test_a_period_in_another_order_is_read_off_its_own_index(large: Database, sort: str) -> None:
    async with large.connection() as connection:
        values = {
            **ALL_TASKS_VIEWER,
            **FIRST,
            **await someone(connection, "admin"),
            "created_from": datetime(2025, 5, 20, tzinfo=UTC),
        }
        plan = await explain(connection, STATEMENTS["tasks.list_period_by_title"], values, sort=sort)
    (sought,) = [node for node in plan if node["Node Type"] == "Result" and "One-Time Filter" in node]
    used = {node["Index Name"]: node["Index Cond"] for node in nodes(sought) if "Index Name" in node}
    # Which of the indexes with times is read matters little for some thousand tasks.
    assert used.keys() <= {"tasks_created_idx", "tasks_block_idx", "tasks_week_idx"}
    assert all("created_at >= " in condition for condition in used.values())
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("who", ["admin", "busy user"])
@pytest.mark.parametrize("sort", STATEMENTS["tasks.search"].texts)
async def test_a_rare_word_is_found_by_its_index(large: Database, sort: str, who: str) -> None:
    async with large.connection() as connection:
        word = await connection.fetchval("select title from tasks order by id desc limit 1")
        values = {**ALL_TASKS_VIEWER, **FIRST, **await someone(connection, who), "sought": word}
        plan = await explain(connection, STATEMENTS["tasks.search"], values, sort=sort)
    assert "task_search_words_idx" in {node.get("Index Name") for node in plan}
    assert not [node for node in plan if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("sort", STATEMENTS["tasks.list_index_only"].texts)
async def test_the_tasks_before_a_page_are_read_with_an_index_only_scan(large: Database, sort: str) -> None:
    async with large.connection() as connection:
        values = {
            **ALL_TASKS_VIEWER,
            **FIRST,
            **await someone(connection, "admin"),
            "status": ["done"],
            "row_offset": 1000,
        }
        plan = await explain(connection, STATEMENTS["tasks.list_index_only"], values, sort=sort)
    (limit,) = [node for node in plan if node["Node Type"] == "Limit"]
    assert [node["Node Type"] for node in nodes(limit)] == ["Limit", "Index Only Scan"]


WALK = {*listing.NO_BOUNDS, "within_period", "walk_limit"}
NARROW, WIDE = ({"created_from": datetime(2025, month, 1, tzinfo=UTC)} for month in (5, 2))
FAR = {"row_offset": 5}
USERS = {"viewer_is_admin": False}


@pytest.mark.parametrize(
    ("sort", "chosen", "form"),
    [
        ("-created_at", {}, "tasks.list"),
        ("title", {}, "tasks.list"),
        ("created_at", NARROW, "tasks.list"),
        ("title", NARROW, "tasks.list_period_by_title"),
        ("title", {**NARROW, **FAR}, "tasks.list_period_by_title"),
        ("title", WIDE, "tasks.list_index_only"),
        ("-id", NARROW, "tasks.list_index_only"),
        ("-id", {**WIDE, **FAR}, "tasks.list_index_only"),
        ("-created_at", {**NARROW, **FAR}, "tasks.list_index_only"),
        ("title", {"sought": "-x"}, "tasks.search_walk"),
        ("title", {"sought": "x"}, "tasks.search_walk tasks.search"),
        ("-id", {**WIDE, **FAR, "sought": ""}, "tasks.search_walk tasks.search"),
        ("-created_at", USERS, "tasks.list"),
        ("-created_at", {**USERS, **FAR}, "tasks.list_index_only"),
        ("title", USERS, "tasks.list_of_user"),
        ("title", {**USERS, **NARROW}, "tasks.list_of_user"),
        ("-status", {"user_id": 1}, "tasks.list_of_user"),
        ("id", {**USERS, **WIDE, **FAR}, "tasks.list_of_user"),
    ],
)
async def test_each_list_is_read_by_the_form_for_it(
    large: Database, module_database_url: str, sort: Any, chosen: dict[str, Any], form: str
) -> None:
    async with large.connection() as connection:
        values = {**ALL_TASKS_VIEWER, **FIRST, **await someone(connection, "admin"), **chosen}
    values = {name: value for name, value in values.items() if name not in WALK}
    async with pool.connected(module_database_url, make_settings(module_database_url, database_pool_size=1)) as fresh:
        await listing.fetch_rows(fresh, sort=sort, **{**values, "sought": None, **chosen})
        async with fresh.connection() as connection:
            prepared = await connection.fetch("select statement from pg_prepared_statements")
    tags = [tag[1] for row in prepared if (tag := re.match(r"\w+ /\* (tasks\.(list|search).*?) \*/", row["statement"]))]
    assert sorted(tags) == sorted(f"{name} {sort}" for name in form.split())


@pytest.mark.parametrize("sort", ["id", "-id", "status", "-status", "updated_at", "-updated_at"])
async def test_a_list_of_a_period_starts_reading_at_the_period(large: Database, sort: str) -> None:
    period = {"created_from": datetime(2025, 4, 1, tzinfo=UTC), "created_before": datetime(2025, 4, 3, tzinfo=UTC)}
    async with large.connection() as connection:
        values = {**ALL_TASKS_VIEWER, **FIRST, **await someone(connection, "admin"), **period}
        values |= await listing.fetch_bounds(connection, sort.removeprefix("-"), values)
        plan = await explain(connection, STATEMENTS["tasks.list_index_only"], values, sort=sort)
    conditions = " ".join(node.get("Index Cond", "") for node in plan)
    assert ("updated_at < " if "updated" in sort else "id <= ") in conditions or "created_at < " in conditions


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
