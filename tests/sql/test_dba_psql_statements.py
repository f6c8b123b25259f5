"""`sql/dba/`: what a DBA runs in psql as it is, and what it says of a database where there is something to say."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeAlias

import asyncpg
import psycopg
import pytest

from service.db.queries import q
from service.db.statements import FOLDER, read_all
from tests.sql.conftest import Sessions
from tests.support.postgresql import psql

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ALL = [one for one in read_all() if one.name.startswith("dba.")]
SCRIPTS = [one for one in ALL if not one.header.params]
READ = [one for one in SCRIPTS if one.header.returns != "script" and not one.header.extension]


@pytest.fixture
async def busy(sql: Session, session: Sessions) -> Any:
    """One session that waits for another's lock."""
    user = await sql.fetchval("insert into users (username, password_hash) values ('Ada', '') returning id")
    await sql.execute("insert into tasks (user_id, title) values ($1, 'x')", user)
    other = await session(application_name="late")
    async with sql.transaction():
        await sql.execute("update tasks set title = 'y'")
        waiting = asyncio.ensure_future(other.execute("delete /* tasks.delete */ from tasks"))
        watcher = await session()
        while not await watcher.fetchval("select true from pg_locks where not granted"):
            assert not waiting.done()
        yield watcher, sql.get_server_pid(), other.get_server_pid()
    await waiting


def test_the_guide_documents_each_script_and_its_parameters() -> None:
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = guide.partition("| file in `dba/` |")[2].partition("\n\n")[0]
    lines = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert sorted(name for line in lines for name in line) == sorted(one.path.stem for one in ALL)
    assert sorted(lines[-1]) == sorted(one.path.stem for one in ALL if one.header.params)


@pytest.mark.parametrize("script", READ, ids=lambda one: one.name)
async def test_a_script_runs_in_psql_as_it_is_and_changes_nothing(database_url: str, script: Any) -> None:
    ended = psql(database_url, "-c", "set default_transaction_read_only = on", "-f", str(script.path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "rows)" in ended.stdout or "row)" in ended.stdout


async def test_blocked_sessions_are_listed_with_their_blockers(busy: Any) -> None:
    watcher, first, second = busy
    (wait,) = await q.dba.locks(watcher)
    assert (wait["waiting_pid"], wait["blocking_pid"], wait["waiting_tag"]) == (second, first, "tasks.delete")
    assert wait["blocking_state"] == "idle in transaction"


async def test_running_statements_are_listed_with_their_tags(busy: Any) -> None:
    watcher, first, second = busy
    running = {row["pid"]: row for row in await q.dba.running(watcher)}
    assert running[second]["tag"] == "tasks.delete"
    assert running[second]["blocked_by"] == [first]
    assert running[second]["application"] == "late"
    assert running[second]["wait"] == "Lock: transactionid"


async def test_unused_and_missing_indexes_are_reported(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    try:
        assert [row["needless"] for row in await q.dba.duplicate_indexes(connection)] == []
        assert [row["of_table"] for row in await q.dba.missing_indexes(connection) if row["column_names"]] == []
        await connection.execute(
            "create index users_role_idx on users (role); create index users_role_active_idx on users (role, active);"
            "create index users_role_desc_idx on users (role desc);"
            "create index users_admin_idx on users (role) where active;"
            "create table notes (user_id bigint constraint notes_fkey references users (id))"
        )
        (needless,) = await q.dba.duplicate_indexes(connection)
        assert (needless["needless"], needless["beside"]) == ("users_role_idx", "users_role_active_idx")
        missing = [row for row in await q.dba.missing_indexes(connection) if row["column_names"]]
        assert [(row["of_table"], row["column_names"]) for row in missing] == [("notes", "user_id")]
        unused = {row["index_name"] for row in await q.dba.unused_indexes(connection)}
        assert unused >= {"users_role_idx", "tasks_title_idx"}
        assert "users_username_key" not in unused
    finally:
        await connection.close()


async def test_sizes_dead_rows_memory_and_the_queue_are_reported(sql: Session) -> None:
    sizes = {row["of_table"]: row for row in await q.dba.sizes(sql)}
    tasks = sizes["tasks"]
    assert tasks["total_bytes"] == tasks["table_bytes"] + tasks["index_bytes"] + tasks["other_bytes"]
    assert {row["of_table"] for row in await q.dba.bloat(sql)} >= {"tasks", "users"}
    assert {row["of_table"] for row in await q.dba.cache(sql)} >= {"tasks", "users"}
    queue = {row["kind"]: row for row in await q.dba.replication(sql)}["notifications"]
    assert queue["percent_full"] is not None
    assert 0 <= queue["percent_full"] < 100


async def test_large_tables_generic_plans_and_id_use_are_reported(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    try:
        assert await q.dba.large_tables(connection, least_rows=1) == []
        await connection.execute(
            "insert into users (username, password_hash) select 'u' || n, '' from generate_series(100, 300) n"
        )
        await connection.execute("insert into tasks (user_id, title) select id, 'x' from users; analyze")
        assert [row["name"] for row in await q.dba.large_tables(connection, least_rows=200)] == [
            "task_events",
            "task_search",
            "tasks",
            "users",
        ]
        assert await q.dba.last_task_id(connection) == 201
        await connection.execute("prepare one as select 1; set plan_cache_mode = force_generic_plan; execute one")
        assert await q.dba.generic_plans(connection, name="one") == 1
    finally:
        await connection.close()


def test_the_roles_have_only_the_privileges_of_their_purpose(own_database_url: str) -> None:
    script = next(one for one in SCRIPTS if one.name == "dba.roles")
    for _ in range(2):
        ended = psql(own_database_url, "-q", "-f", str(script.path))
        assert ended.returncode == 0, ended.stderr
    with psycopg.connect(own_database_url, autocommit=True) as connection:

        def allowed(role: str, statement: str) -> bool:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(f"set local role {role}")
                    connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                return False
            return True

        ddl = [
            "create table x ()",
            "drop table tickets",
            "alter table tasks add column x int",
            "create index on tasks (id)",
        ]
        dml = [
            "delete from tasks",
            "update users set role = 'user' where false",
            "insert into tickets select * from tickets",
        ]
        reads = ["select * from tasks, task_events", "select id, username from users", "select id from sessions"]
        secrets = ["select password_hash from users", "select secret from sessions", "select * from tickets"]
        history = ["delete from _yoyo_migration"]
        expected = {
            "tasks_owner": (True, True, True, True, True),
            "tasks_app": (False, True, True, True, False),
            "tasks_reader": (False, False, True, False, False),
        }
        for role, may in expected.items():
            for statements, is_allowed in zip((ddl, dml, reads, secrets, history), may, strict=True):
                for statement in statements:
                    assert allowed(role, statement) is is_allowed, (role, statement)
        # What the owner's next migration makes is the others' to use.
        connection.execute("set role tasks_owner; create table later (id int); reset role")
        assert allowed("tasks_app", "insert into later values (1)")
        assert not allowed("tasks_reader", "select * from later")
        assert not allowed("tasks_app", "drop table later")
        settings: dict[str, str] = dict(
            connection.execute(
                "select r.rolname, string_agg(split_part(c, '=', 1), ' ' order by c) from pg_roles as r,"
                " unnest(r.rolconfig) as c where r.rolname like 'tasks\\_%' group by 1"
            ).fetchall()
        )
        for role in ("tasks_app", "tasks_reader"):
            assert {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} <= set(
                settings[role].split()
            )


def test_no_script_is_without_a_test() -> None:
    assert {one.name for one in SCRIPTS if one.header.returns == "script"} == {"dba.roles"}
