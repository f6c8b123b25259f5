"""The schema as psql meets it: its constraints, defaults, names and trigger, and the way down and up again."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Literal, TypeAlias

import asyncpg
import psycopg
import pytest

from service.core import errors
from service.db import errors as db_errors
from service.db import migrations
from tests.sql.conftest import Sessions

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

INVALID, CONFLICT, GONE = errors.InvalidError, errors.ConflictError, errors.UnauthorizedError
COPY = "insert into task_events (id, type, task_id, user_id, task, size) overriding system value"
CLAIM = """insert into idempotency_keys (user_id, route, key, fingerprint, holder, claimed_until)
    values (:u, 'POST /tasks', 'k', '', '', now())"""
TICKET = "insert into tickets (hash, user_id, access_expires_at) values ('x', :u, now())"
SESSION = "insert into sessions (user_id, expires_at, secret, refresh_hash) values (:u, now(), 's', 'x')"
KEY = "insert into api_keys (user_id, name, hash) values (:u, 'key', 'x')"
KEYED = "repeat('a', 32) || '/' || repeat('b', 32)"
FILE = f"""insert into attachments (task_id, added_by, key, filename, content_type, size, sha256)
    values (:t, :u, {KEYED}, 'a.txt', 'text/plain', 1, repeat('c', 64))"""
REMOVED = "insert into removed_attachments (key, task_id, attachment, with_task) values ('k', 1, '{}', false)"
# A statement that violates each constraint, and what that means to a client; None where no client can cause it.
# `first` is the id of the account and of the task that are there.
VIOLATIONS: dict[str, tuple[str, type[errors.ServiceError] | None]] = {
    "users_pkey": (
        "insert into users (id, username, password_hash) overriding system value values (:u, 'bob', '')",
        None,
    ),
    "users_username_key": ("insert into users (username, password_hash) values ('ADA', '')", CONFLICT),
    "users_username_check": ("insert into users (username, password_hash) values ('a b', '')", INVALID),
    "users_role_check": ("insert into users (username, password_hash, role) values ('bob', '', 'root')", INVALID),
    "users_id_not_null": (
        "insert into users (id, username, password_hash) overriding system value values (null, 'bob', '')",
        None,
    ),
    "users_username_not_null": ("insert into users (username, password_hash) values (null, '')", None),
    "users_password_hash_not_null": ("insert into users (username) values ('bob')", None),
    "users_role_not_null": ("update users set role = null", None),
    "users_created_at_not_null": ("update users set created_at = null", None),
    "tasks_pkey": ("insert into tasks (id, user_id, title) overriding system value values (:t, :u, 'x')", None),
    "tasks_user_id_fkey": ("insert into tasks (user_id, title) values (:u + 1, 'x')", GONE),
    "tasks_title_check": ("update tasks set title = E' \\n'", INVALID),
    "tasks_description_check": ("update tasks set description = repeat('x', 10001)", INVALID),
    "tasks_status_check": ("update tasks set status = 'later'", INVALID),
    "tasks_city_check": ("update tasks set city = repeat('x', 101)", INVALID),
    "users_created_at_check": ("update users set created_at = 'infinity'", INVALID),
    "tasks_weather_check": ("update tasks set weather = '[]'", INVALID),
    "tasks_created_at_check": ("update tasks set created_at = '10000-01-01'", INVALID),
    "tasks_updated_at_check": ("insert into tasks (user_id, title, updated_at) values (:u, 'x', '-infinity')", INVALID),
    "tasks_id_not_null": (
        "insert into tasks (id, user_id, title) overriding system value values (null, :u, 'x')",
        None,
    ),
    "tasks_user_id_not_null": ("update tasks set user_id = null", None),
    "tasks_title_not_null": ("update tasks set title = null", None),
    "tasks_status_not_null": ("update tasks set status = null", None),
    "tasks_created_at_not_null": ("update tasks set created_at = null", None),
    "tasks_updated_at_not_null": ("insert into tasks (user_id, title, updated_at) values (:u, 'x', null)", None),
    "tasks_version_not_null": ("insert into tasks (user_id, title, version) values (:u, 'x', null)", None),
    "tasks_weather_due_at_not_null": ("update tasks set weather_due_at = null", None),
    "task_search_pkey": ("insert into task_search values (:t, '', :u, now(), '')", None),
    "task_search_task_id_fkey": ("insert into task_search values (:t + 1, '', :u, now(), '')", None),
    "task_search_task_id_not_null": ("update task_search set task_id = null", None),
    "task_search_words_not_null": ("update task_search set words = null", None),
    "task_search_user_id_not_null": ("update task_search set user_id = null", None),
    "task_search_created_at_not_null": ("update task_search set created_at = null", None),
    "task_search_title_not_null": ("update task_search set title = null", None),
    "task_events_pkey": (
        f"{COPY} select id, type, task_id, user_id, task, size from task_events",
        None,
    ),
    "task_events_id_not_null": (
        f"{COPY} select null, type, task_id, user_id, task, size from task_events",
        None,
    ),
    **{
        f"task_events_{column}_not_null": (f"update task_events set {column} = null", None)
        for column in ("xid", "type", "task_id", "user_id", "at", "task", "size")
    },
    "task_event_horizon_pkey": ("insert into task_event_horizon default values", None),
    "task_event_horizon_one_check": ("update task_event_horizon set one = false", INVALID),
    "task_event_horizon_one_not_null": ("update task_event_horizon set one = null", None),
    "task_event_horizon_expired_id_not_null": ("update task_event_horizon set expired_id = null", None),
    "idempotency_keys_pkey": (f"{CLAIM}; {CLAIM}", None),
    "idempotency_keys_user_id_fkey": (CLAIM.replace(":u", ":u + 1"), GONE),
    "idempotency_keys_key_check": (CLAIM.replace("'k'", "'a b'"), INVALID),
    "idempotency_keys_status_headers_body_check": (f"{CLAIM}; update idempotency_keys set status = 201", INVALID),
    **{
        f"idempotency_keys_{column}_not_null": (f"{CLAIM}; update idempotency_keys set {column} = null", None)
        for column in ("user_id", "route", "key", "fingerprint", "holder", "claimed_at", "claimed_until")
    },
    "attachments_pkey": (
        FILE.replace("(task_id", "(id, task_id").replace("values (", "overriding system value values (1, ")
        + "; "
        + FILE.replace("(task_id", "(id, task_id")
        .replace("values (", "overriding system value values (1, ")
        .replace("'b'", "'c'"),
        None,
    ),
    "attachments_key_key": (f"{FILE}; {FILE}", None),
    "attachments_task_id_fkey": (FILE.replace(":t", ":t + 1"), None),
    "attachments_added_by_fkey": (FILE.replace(":u", ":u + 1"), GONE),
    "attachments_key_check": (FILE.replace(KEYED, "'../' || repeat('b', 32)"), INVALID),
    "attachments_filename_check": (FILE.replace("'a.txt'", "'../a.txt'"), INVALID),
    "attachments_content_type_check": (FILE.replace("text/plain", "text"), INVALID),
    "attachments_size_check": (FILE.replace(", 1, ", ", -1, "), INVALID),
    "attachments_sha256_check": (FILE.replace("'c'", "'C'"), INVALID),
    "attachments_created_at_check": (f"{FILE}; update attachments set created_at = 'infinity'", INVALID),
    "attachments_id_not_null": (
        FILE.replace("(task_id", "(id, task_id").replace("values (", "overriding system value values (null, "),
        None,
    ),
    **{
        f"attachments_{column}_not_null": (f"{FILE}; update attachments set {column} = null", None)
        for column in ("task_id", "key", "filename", "content_type", "size", "sha256", "created_at")
    },
    "removed_attachments_pkey": (f"{REMOVED}; {REMOVED}", None),
    **{
        f"removed_attachments_{column}_not_null": (f"{REMOVED}; update removed_attachments set {column} = null", None)
        for column in ("key", "task_id", "attachment", "with_task", "removed_at")
    },
    "attachment_store_pkey": ("insert into attachment_store default values", None),
    "attachment_store_one_check": ("update attachment_store set one = false", INVALID),
    "attachment_store_folder_check": ("update attachment_store set folder = '..'", INVALID),
    **{
        f"attachment_store_{column}_not_null": (f"update attachment_store set {column} = null", None)
        for column in ("one", "folder", "sweep_due_at")
    },
    "tickets_pkey": (f"{TICKET}; {TICKET}", None),
    "tickets_user_id_fkey": (TICKET.replace(":u", ":u + 1"), GONE),
    "tickets_hash_not_null": (TICKET.replace("'x'", "null"), None),
    "tickets_user_id_not_null": (TICKET.replace(":u", "null"), None),
    "tickets_expires_at_not_null": (f"{TICKET}; update tickets set expires_at = null", None),
    "users_active_not_null": ("update users set active = null", None),
    "users_last_admin": ("update users set role = 'admin'; update users set role = 'user'", CONFLICT),
    "sessions_pkey": (f"{SESSION}; insert into sessions overriding system value table sessions", None),
    "sessions_refresh_key": (f"{SESSION}; {SESSION}", None),
    "sessions_user_id_fkey": (SESSION.replace(":u", ":u + 1"), GONE),
    "sessions_id_not_null": (
        SESSION.replace("(user_id", "(id, user_id").replace("values (", "overriding system value values (null, "),
        None,
    ),
    **{
        f"sessions_{column}_not_null": (f"{SESSION}; update sessions set {column} = null", None)
        for column in ("user_id", "created_at", "last_used_at", "expires_at", "secret", "refresh_hash")
    },
    "api_keys_pkey": (f"{KEY}; insert into api_keys overriding system value table api_keys", None),
    "api_keys_hash_key": (f"{KEY}; {KEY}", None),
    "api_keys_user_id_fkey": (KEY.replace(":u", ":u + 1"), GONE),
    "api_keys_name_check": (KEY.replace("'key'", r"E' \n'"), INVALID),
    "api_keys_expires_at_check": (f"{KEY}; update api_keys set expires_at = 'infinity'", INVALID),
    "api_keys_id_not_null": (
        "insert into api_keys (id, user_id, name, hash) overriding system value values (null, :u, 'key', 'x')",
        None,
    ),
    **{
        f"api_keys_{column}_not_null": (f"{KEY}; update api_keys set {column} = null", None)
        for column in ("user_id", "name", "hash", "read_only", "created_at")
    },
}
OWN = "c.relnamespace = current_schema()::regnamespace and c.relname not like '%yoyo%'"
CATALOGUE = {
    "columns": f"""select c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
        a.attcollation::regcollation, a.attnotnull, a.attidentity,
        pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        from pg_class as c join pg_attribute as a on a.attrelid = c.oid
        left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
        where {OWN} and a.attnum > 0 and not a.attisdropped
        order by 1, case when c.relkind = 'v' then a.attnum end, a.attname""",  # one that comes back is the last
    "constraints": f"""select c.relname, o.conname, o.contype, o.convalidated, pg_get_constraintdef(o.oid)
        from pg_constraint as o join pg_class as c on o.conrelid = c.oid where {OWN} order by 1, 2""",
    "indexes": f"""select c.relname, pg_get_indexdef(c.oid) from pg_class as c
        where {OWN} and c.relkind = 'i' order by 1""",
    "views": f"""select c.relname, pg_get_viewdef(c.oid) from pg_class as c
        where {OWN} and c.relkind = 'v' order by 1""",
    "functions": """select pg_get_functiondef(p.oid) from pg_proc as p
        where p.pronamespace = current_schema()::regnamespace order by 1""",
    "triggers": f"""select c.relname, pg_get_triggerdef(t.oid)
        from pg_trigger as t join pg_class as c on t.tgrelid = c.oid
        where {OWN} and not t.tgisinternal order by 1, 2""",
    "tables": f"""select c.relname, c.relkind, obj_description(c.oid) from pg_class as c where {OWN} order by 1""",
}


def catalogue(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as connection:
        return {kind: connection.execute(query.encode()).fetchall() for kind, query in CATALOGUE.items()}


@pytest.fixture
async def first(sql: Session) -> dict[str, int]:
    """The ids of the account and of the task that are there."""
    user = await sql.fetchval("insert into users (username, password_hash) values ('Ada', '') returning id")
    task = await sql.fetchval("insert into tasks (user_id, title) values ($1, 'first') returning id", user)
    return {":u": user, ":t": task}


async def test_every_constraint_has_a_case_and_every_entry_of_the_error_table_a_constraint(sql: Session) -> None:
    rows = await sql.fetch(
        f"""select o.conname::text as name from pg_constraint as o join pg_class as c on o.conrelid = c.oid where {OWN}
        union select i.relname::text from pg_index as x join pg_class as i on i.oid = x.indexrelid
        join pg_class as c on c.oid = x.indrelid where x.indisunique and {OWN}"""
    )
    assert {row["name"] for row in rows} == VIOLATIONS.keys()
    # No client reaches these; a check that the table does not name means a bad value all the same.
    unreached = {"users_created_at_check", "tasks_weather_check", "tasks_created_at_check", "tasks_updated_at_check"}
    unreached |= {
        "task_event_horizon_one_check",
        "idempotency_keys_status_headers_body_check",
        "attachment_store_one_check",
        "attachment_store_folder_check",
    }
    unreached |= {f"attachments_{column}_check" for column in ("key", "content_type", "size", "sha256", "created_at")}
    meant = {name for name, (_, meaning) in VIOLATIONS.items() if meaning}
    assert db_errors.CONSTRAINTS.keys() == meant - unreached


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violated_constraint_raises_the_error_of_the_table(
    sql: Session, first: dict[str, int], name: str
) -> None:
    statement, meaning = VIOLATIONS[name]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as failure:
        await sql.execute(re.sub(r":[ut]", lambda mark: str(first[mark[0]]), statement))
    violated = failure.value
    if isinstance(violated, asyncpg.NotNullViolationError):
        assert f"{violated.table_name}_{violated.column_name}_not_null" == name
    else:
        assert violated.constraint_name == name
    unlisted = errors.ConflictError if violated.sqlstate in db_errors.CONFLICTS else errors.InvalidError
    assert type(db_errors.translate(violated)) is (meaning or unlisted)


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
async def test_a_key_is_named(sql: Session, first: dict[str, int], name: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="api_keys_name_check"):
        await sql.execute("insert into api_keys (user_id, name, hash) values ($1, $2, 'x')", first[":u"], name)
    assert await sql.execute("insert into api_keys (user_id, name, hash) values ($1, $2, 'x')", first[":u"], "я" * 100)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("title", "x"),
        ("title", "\N{GRINNING FACE}" * 100),
        ("description", "x" * 10_000),
        ("city", "я" * 100),
        ("city", ""),
    ]
    + [("status", status) for status in ("todo", "in_progress", "done")],
)
async def test_a_value_equal_to_its_limit_is_accepted(
    sql: Session, first: dict[str, int], column: str, value: str
) -> None:
    assert await sql.execute(f"update tasks set {column} = $1", value) == "UPDATE 1"


async def test_a_dbas_plain_inserts_work(sql: Session) -> None:
    user = await sql.fetchrow("insert into users (username, password_hash) values ('bob', 'x') returning *")
    assert user is not None
    task = await sql.fetchrow("insert into tasks (user_id, title) values ($1, 'Plain') returning *", user["id"])
    assert task is not None
    now = await sql.fetchval("select now()")
    assert user["role"] == "user"
    assert (task["status"], task["version"]) == ("todo", 1)
    assert (task["description"], task["city"], task["weather"]) == (None, None, None)
    assert task["created_at"] == task["updated_at"]
    assert 0 <= (now - task["created_at"]).total_seconds() < 60


async def test_a_change_by_anyone_moves_version_and_updated_at_on(sql: Session, first: dict[str, int]) -> None:
    changes = ["title = 'other'", "description = 'x'", "description = null", "status = 'done'", "city = 'Moscow'"]
    changes += ["""weather = '{"temperature": 1, "condition": "Snow"}'""", "created_at = '2020-01-01Z'"]
    before = await sql.fetchrow("select * from tasks")
    for change in changes:
        assert before is not None
        after = await sql.fetchrow(f"update tasks set {change} returning *")
        assert after is not None
        assert after["version"] == before["version"] + 1
        assert after["updated_at"] > before["updated_at"]
        before = after


@pytest.mark.parametrize(
    "change", ["title = title", "description = null", "version = 99", "updated_at = '2020-01-01Z'"]
)
async def test_a_change_that_changes_nothing_moves_neither(sql: Session, first: dict[str, int], change: str) -> None:
    before = await sql.fetchrow("select * from tasks")
    assert await sql.execute(f"update tasks set {change}") == "UPDATE 1"
    assert await sql.fetchrow("select * from tasks") == before


async def test_version_and_updated_at_cannot_be_tampered_with(sql: Session, first: dict[str, int]) -> None:
    before = await sql.fetchrow("select * from tasks")
    after = await sql.fetchrow(
        "update tasks set title = 'other', version = 99, updated_at = '2020-01-01Z' returning *, now() as now"
    )
    assert before is not None
    assert after is not None
    assert (after["version"], after["updated_at"]) == (2, after["now"])


SNOW, HEAT = '{"condition": "Snow", "temperature": 1}', '{"condition": "Clear", "temperature": 35}'  # as jsonb has it


@pytest.mark.parametrize(("city", "weather"), [("Moscow", SNOW), ("Moscow", None), (None, None)])
async def test_a_new_tasks_weather_is_its_citys(
    sql: Session, first: dict[str, int], city: str | None, weather: str | None
) -> None:
    new = await sql.fetchrow(
        "insert into tasks (user_id, title, city, weather) values ($1, 'x', $2, $3) returning *",
        first[":u"],
        city,
        weather,
    )
    assert new is not None
    assert (new["city"], new["weather"], new["version"]) == (city, weather, 1)
    assert new["weather_city"] == (city if weather else None)


# What tasks_prepare makes of a task in Moscow where it snows: what was changed, and then its weather, the
# city that it is of, and how far the version moved.
@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("title = 'x'", (SNOW, "Moscow", 1)),
        ("city = 'Paris'", (None, None, 1)),
        ("city = null", (None, None, 1)),
        ("city = 'Moscow'", (SNOW, "Moscow", 0)),
        (f"city = 'Paris', weather = '{HEAT}'", (HEAT, "Paris", 1)),
        ("city = 'Paris', weather = null", (None, None, 1)),
        (f"weather = '{HEAT}'", (HEAT, "Moscow", 1)),
        ("weather = null", (None, None, 1)),
        (f"weather = '{HEAT}', weather_city = 'Paris'", (HEAT, "Paris", 1)),
        ("weather_city = null", (SNOW, None, 0)),
        ("weather_due_at = now()", (SNOW, "Moscow", 0)),
    ],
)
async def test_weather_follows_its_city_after_any_change(
    sql: Session, first: dict[str, int], change: str, outcome: tuple[str | None, str | None, int]
) -> None:
    before = await sql.fetchrow(f"update tasks set city = 'Moscow', weather = '{SNOW}' returning *")
    assert before is not None
    assert before["weather_city"] == "Moscow"
    after = await sql.fetchrow(f"update tasks set {change} returning *")
    assert after is not None
    moved = after["version"] - before["version"]
    assert (after["weather"], after["weather_city"], moved) == outcome
    assert (after["updated_at"] > before["updated_at"]) is bool(moved)


@pytest.mark.parametrize(("change", "due"), [("title = 'x'", False), ("city = 'Paris'", True), ("city = null", True)])
async def test_weather_that_is_cleared_is_due_at_once(
    sql: Session, first: dict[str, int], change: str, due: bool
) -> None:
    await sql.execute("update tasks set city = 'Moscow'")
    await sql.execute("update tasks set weather_due_at = now() + interval '1 min'")
    assert await sql.fetchval(f"update tasks set {change} returning weather_due_at = '-infinity'") is due


async def test_updated_at_does_not_go_back_with_the_clock(
    sql: Session, database_url: str, first: dict[str, int]
) -> None:
    """A transaction that began earlier may change the row later."""
    await sql.execute("begin; select now()")
    other = await asyncpg.connect(database_url)
    later = await other.fetchval("update tasks set title = 'by the later one' returning updated_at")
    await other.close()
    assert await sql.fetchval("select now()") < later
    assert await sql.fetchval("update tasks set title = 'by the earlier one' returning updated_at") == later
    await sql.execute("commit")


async def test_everything_a_user_owns_is_deleted_with_the_account(sql: Session, first: dict[str, int]) -> None:
    await sql.execute(re.sub(":u", str(first[":u"]), f"{SESSION}; {KEY}; {TICKET}; delete from tasks"))
    await sql.execute("delete from users")
    for table in ("sessions", "api_keys", "tickets"):
        assert await sql.fetchval(f"select count(*) from {table}") == 0


DEMOTION, DEACTIVATION, DELETION = (
    "update users set role = 'user'",
    "update users set active = false",
    "delete from users",
)


@pytest.fixture
async def two_admins(sql: Session) -> None:
    """Two administrators, and besides them one that is not active and a user."""
    await sql.execute(
        "insert into users (username, password_hash, role, active) values"
        " ('ann', '', 'admin', true), ('bob', '', 'admin', true),"
        " ('old', '', 'admin', false), ('eve', '', 'user', true)"
    )


@pytest.mark.usefixtures("two_admins")
@pytest.mark.parametrize("change", [DEMOTION, DEACTIVATION, DELETION])
async def test_the_last_active_administrator_stays(sql: Session, change: str) -> None:
    assert await sql.execute(f"{change} where username = 'ann'") in {"UPDATE 1", "DELETE 1"}
    with pytest.raises(asyncpg.CheckViolationError, match="the last active administrator stays"):
        await sql.execute(f"{change} where username = 'bob'")
    assert await sql.fetchval("select role || active from users where username = 'bob'") == "admintrue"
    assert await sql.execute(f"{change} where username in ('old', 'eve')") in {"UPDATE 2", "DELETE 2"}
    assert await sql.execute("update users set password_hash = 'x', username = 'rob' where username = 'bob'")


@pytest.mark.usefixtures("two_admins")
@pytest.mark.parametrize("change", [DEMOTION, DEACTIVATION, DELETION])
async def test_no_statement_removes_all_administrators(sql: Session, change: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="the last active administrator stays"):
        await sql.execute(change)
    assert await sql.fetchval("select count(*) from users where role = 'admin' and active") == 2


async def waits(sql: Session, pid: int, statement: asyncio.Future[str]) -> None:
    """Wait until another session's statement waits for a lock."""
    async with asyncio.timeout(10):
        while not await sql.fetchval("select true from pg_locks where pid = $1 and not granted", pid):
            assert not statement.done()


@pytest.mark.usefixtures("two_admins")
@pytest.mark.parametrize("change", [DEMOTION, DEACTIVATION, DELETION])
async def test_two_administrators_cannot_remove_each_other_concurrently(
    sql: Session, session: Sessions, change: str
) -> None:
    """The second waits until the first has committed, and sees then that it would be the last."""
    other = await session()
    pid = other.get_server_pid()
    async with sql.transaction():
        await sql.execute(f"{change} where username = 'ann'")
        second = asyncio.ensure_future(other.execute(f"{change} where username = 'bob'"))
        await waits(sql, pid, second)
    with pytest.raises(asyncpg.CheckViolationError, match="the last active administrator stays"):
        await second
    assert await sql.fetchval("select username from users where role = 'admin' and active") == "bob"


@pytest.mark.usefixtures("two_admins")
@pytest.mark.parametrize("change", [DEMOTION, DEACTIVATION, DELETION])
@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_transaction_with_an_outdated_snapshot_of_administrators_removes_no_administrator(
    sql: Session, session: Sessions, change: str, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    other = await session()
    transaction = other.transaction(isolation=isolation)
    await transaction.start()
    assert await other.fetchval("select count(*) from users where role = 'admin' and active") == 2
    await sql.execute(f"{change} where username = 'ann'")
    with pytest.raises(asyncpg.SerializationError):
        await other.execute(f"{change} where username = 'bob'")
    await transaction.rollback()
    assert await sql.fetchval("select username from users where role = 'admin' and active") == "bob"


@pytest.mark.usefixtures("two_admins")
async def test_an_administrator_is_removed_if_a_concurrent_removal_rolls_back(sql: Session, session: Sessions) -> None:
    other = await session()
    pid = other.get_server_pid()
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(f"{DEMOTION} where username = 'ann'")
    second = asyncio.ensure_future(other.execute(f"{DEMOTION} where username = 'bob'"))
    await waits(sql, pid, second)
    await transaction.rollback()
    assert await second == "UPDATE 1"
    assert await sql.fetchval("select username from users where role = 'admin' and active") == "ann"


# What completed_at becomes, for a task that is not done and for one that was completed at an earlier time.
@pytest.mark.parametrize(
    ("change", "from_todo", "from_done"),
    [
        ("status = 'done'", "now()", "'2020-01-01Z'"),
        ("status = 'todo'", "null", "null"),
        ("title = 'x'", "null", "'2020-01-01Z'"),
        ("completed_at = '2021-01-01Z'", "null", "'2021-01-01Z'"),
        ("completed_at = null", "null", "'2020-01-01Z'"),
    ],
)
async def test_the_completion_time_follows_the_status(
    sql: Session, first: dict[str, int], change: str, from_todo: str, from_done: str
) -> None:
    await sql.execute("update tasks set created_at = '2019-01-01Z'")
    for status, expected in (("todo", from_todo), ("done", from_done)):
        await sql.execute(f"update tasks set status = '{status}'; update tasks set completed_at = '2020-01-01Z'")
        before = await sql.fetchrow("select * from tasks")
        after = await sql.fetchrow(
            f"update tasks set {change} returning *, completed_at is not distinct from {expected} as is_expected"
        )
        assert before is not None
        assert after is not None
        assert after["is_expected"], (status, after["completed_at"])
        changes = any(before[name] != after[name] for name in ("status", "title"))
        assert after["version"] - before["version"] == changes
        assert (
            await sql.fetchval(
                "select count(*) from task_events where (task ->> 'version')::int = $1", after["version"]
            )
            == 1
        )


async def test_a_task_that_comes_as_done_was_completed_then(sql: Session, first: dict[str, int]) -> None:
    for columns, values, expected in (
        ("status", "'done'", "now()"),
        ("status", "'todo'", "null"),
        ("status, completed_at", "'todo', now()", "null"),
        ("status, created_at, completed_at", "'done', '2020-01-01Z', '2020-01-02Z'", "'2020-01-02Z'"),
        ("status, created_at", "'done', '9000-01-01Z'", "'9000-01-01Z'"),
    ):
        assert await sql.fetchval(
            f"insert into tasks (user_id, title, {columns}) values ({first[':u']}, 'x', {values})"
            f" returning completed_at is not distinct from {expected}"
        )


async def test_names_say_table_columns_and_kind(sql: Session) -> None:
    kinds = {"p": "pkey", "f": "fkey", "c": "check", "n": "not_null", "u": "key"}
    constraints = await sql.fetch(
        f"""select c.relname, o.conname, o.contype::text, (select array_agg(a.attname::text order by a.attnum)
        from pg_attribute as a where a.attrelid = c.oid and a.attnum = any (o.conkey)) as columns
        from pg_constraint as o join pg_class as c on o.conrelid = c.oid where o.contype <> 't' and {OWN}"""
    )
    for one in constraints:
        columns = [] if one["contype"] == "p" else one["columns"]
        assert one["conname"] == "_".join([one["relname"], *columns, kinds[one["contype"]]])
    indexes = await sql.fetch(
        f"""select c.relname, i.relname as name, x.indisunique
        from pg_index as x join pg_class as i on i.oid = x.indexrelid
        join pg_class as c on c.oid = x.indrelid where {OWN} and not x.indisprimary"""
    )
    assert len(indexes) > 5
    for one in indexes:
        assert re.fullmatch(rf"{one['relname']}_[a-z_]+_{'key' if one['indisunique'] else 'idx'}", one["name"])


def test_the_way_down_and_up_again_leads_to_the_same_schema(own_database_url: str, empty_database_url: str) -> None:
    before = catalogue(own_database_url)
    unique = {"users_username_key", "sessions_refresh_key", "api_keys_hash_key"}  # which are indexes
    assert {row[1] for row in before["constraints"]} == VIOLATIONS.keys() - unique
    count = len(migrations.release_ids())
    assert migrations.rollback(own_database_url, count=count) == migrations.release_ids()[::-1]
    assert catalogue(own_database_url) == catalogue(empty_database_url)
    migrations.migrate(own_database_url)
    assert catalogue(own_database_url) == before


def test_each_migration_can_be_rolled_back_alone(empty_database_url: str) -> None:
    before = [catalogue(empty_database_url)]
    for name in migrations.release_ids():
        assert migrations.migrate(empty_database_url, to=name) == [name]
        before.append(catalogue(empty_database_url))
    for name in reversed(migrations.release_ids()):
        assert before.pop() == catalogue(empty_database_url)
        assert migrations.rollback(empty_database_url, count=1) == [name]
    assert before == [catalogue(empty_database_url)]


@pytest.mark.parametrize("column", ["users.username", "tasks.title", "tasks.status"])
async def test_text_is_sorted_and_compared_by_code_point_on_every_server(sql: Session, column: str) -> None:
    table, _, name = column.partition(".")
    collation = (
        "select attcollation::regcollation::text from pg_attribute where attrelid = $1::regclass and attname = $2"
    )
    assert await sql.fetchval(collation, table, name) == '"C"'
