"""A write does the same from every session: the functions of the schema do not ask for the caller's `search_path`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from service.db import migrations
from service.db.statements import FOLDER
from tests.sql.conftest import Session, Sessions

# Every function that PostgreSQL resolves when it runs, but an extension's: those in SQL that are written `return …` it
# resolves when it creates them.
LATE = """
    select p.oid::regprocedure::text as name, coalesce(p.proconfig, '{}') as settings
    from pg_proc as p
    where p.pronamespace = current_schema()::regnamespace and p.prosqlbody is null
    and not exists (select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')
"""
PINNED = ["search_path=public, pg_temp"]
FILE = "repeat('a', 32) || '/' || repeat('b', 32), 'a.txt', 'text/plain', 1, repeat('c', 64)"
# What fires every trigger; each name says its schema, as those of pg_restore and postgres_fdw do.
WRITES = f"""
    insert into public.users (username, password_hash, role) values ('ada', '', 'admin'), ('bob', '', 'admin');
    insert into public.sessions (user_id, expires_at, secret, refresh_hash)
        select id, now(), 's', username::bytea from public.users;
    insert into public.api_keys (user_id, name, hash) select id, 'key', username::bytea from public.users;
    update public.users set password_hash = 'x' where username = 'ada';
    update public.users set role = 'user' where username = 'bob';
    update public.api_keys set name = 'other';
    delete from public.api_keys;
    insert into public.tasks (user_id, title, city) select id, 'By hand', 'Oslo' from public.users where role = 'admin';
    insert into public.attachments (task_id, key, filename, content_type, size, sha256)
        select id, {FILE} from public.tasks;
    update public.attachments set filename = 'b.txt';
    delete from public.attachments;
    update public.tasks set status = 'done', city = 'Rome', weather = '{{}}';
    delete from public.tasks
"""
OUTCOME = """
    select
        (select string_agg(e.type, ' ' order by e.id) from public.task_events as e) as types,
        (select array_agg(distinct e.size = octet_length(e.task::text) + coalesce(octet_length(e.changes::text), 0))
        from public.task_events as e) as sizes,
        (select e.task ->> 'version' from public.task_events as e order by e.id desc limit 1) as version,
        (select string_agg(u.username, ' ') from public.sessions as s join public.users as u on u.id = s.user_id)
            as logged_in,
        (select string_agg(r.attachment ->> 'filename', ' ') from public.removed_attachments as r) as removed,
        (select string_agg(u.role, ' ' order by u.id) from public.users as u) as roles
"""
EXPECTED = {
    "types": "task.created" + " task.updated" * 4 + " task.deleted",
    "sizes": [True],
    "version": "6",
    "logged_in": "bob",
    "removed": "b.txt",
    "roles": "admin user",
}
# What functions read and write.
TABLES = ("task_events", "tasks", "removed_attachments", "users", "sessions")


async def outcome(sql: Session) -> dict[str, Any]:
    row = await sql.fetchrow(OUTCOME)
    assert row is not None
    return dict(row)


async def test_every_function_that_is_resolved_when_it_runs_pins_its_path(sql: Session) -> None:
    rows = {row["name"]: row["settings"] for row in await sql.fetch(LATE)}
    assert len(rows) > 10
    assert {name for name, settings in rows.items() if settings != PINNED} == set()


async def test_a_function_that_loses_its_path_is_seen(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    try:
        await connection.execute(
            "create or replace function users_announce() returns trigger language plpgsql"
            " as $$ begin return null; end $$;"
            "create function late() returns bigint language sql as 'select count(*) from tasks';"
            "create function early() returns bigint language sql return (select count(*) from tasks)"
        )
        rows = await connection.fetch(LATE)
        assert {row["name"] for row in rows if row["settings"] != PINNED} == {"users_announce()", "late()"}
    finally:
        await connection.close()


@pytest.mark.parametrize("path", ["", "pg_catalog", "nowhere"])
async def test_a_write_does_not_ask_for_the_path(sql: Session, session: Sessions, path: str) -> None:
    other = await session(search_path=path or '""')
    await other.execute(WRITES)
    assert await outcome(sql) == EXPECTED


@pytest.mark.parametrize("table", TABLES)
async def test_a_temporary_table_captures_nothing(sql: Session, session: Sessions, table: str) -> None:
    other = await session()
    await other.execute(f"create temporary table {table} (like public.{table} including all)")
    await other.execute(WRITES)
    assert await outcome(sql) == EXPECTED
    assert await other.fetchval(f"select count(*) from pg_temp.{table}") == 0


async def test_another_schemas_functions_and_operators_do_not_replace_postgresqls(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    try:
        await connection.execute(
            "create schema hostile;"
            "create function hostile.octet_length(text) returns int language sql return -1;"
            "create function hostile.plus(bigint, int) returns bigint language sql return 99;"
            "create operator hostile.+ (leftarg = bigint, rightarg = int, function = hostile.plus);"
            "set search_path = hostile, pg_catalog"
        )
        await connection.execute(WRITES)
        await connection.execute("reset search_path")
        assert await outcome(connection) == EXPECTED
    finally:
        await connection.close()


async def test_rows_are_copied_in_with_an_empty_path(sql: Session, session: Sessions) -> None:
    user = await sql.fetchval("insert into users (username, password_hash) values ('ada', '') returning id")
    other = await session(search_path='""')
    rows = [(user, f"Task {number}", "done") for number in range(3)]
    columns = ["user_id", "title", "status"]
    assert await other.copy_records_to_table("tasks", schema_name="public", records=rows, columns=columns) == "COPY 3"
    found = await sql.fetch("select e.task ->> 'title' as title from task_events as e order by e.id")
    assert [row["title"] for row in found] == ["Task 0", "Task 1", "Task 2"]
    searched = (
        "select count(*) from tasks as t join task_search as s on t.id = s.task_id"
        " where s.words @@ words_sought('task') and t.completed_at is not null"
    )
    assert await sql.fetchval(searched) == 3


@pytest.fixture
def in_another_schema(empty_database_url: str) -> Iterator[str]:
    """A database whose schema is not `public`, and is not in the path of those who write."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute('create schema "The Tasks"')
    separator = "&" if "?" in empty_database_url else "?"
    path = "options=-c%20search_path%3D%22The%5C%20Tasks%22"
    migrations.migrate(f"{empty_database_url}{separator}{path}")
    yield empty_database_url
    migrations.rollback(f"{empty_database_url}{separator}{path}", count=len(migrations.release_ids()))
    with psycopg.connect(empty_database_url) as connection:
        query = "select proname from pg_proc where pronamespace = '\"The Tasks\"'::regnamespace"
        assert connection.execute(query).fetchall() == []


async def test_the_schema_need_not_be_public(in_another_schema: str) -> None:
    connection = await asyncpg.connect(in_another_schema)
    try:
        await connection.execute(WRITES.replace("public.", '"The Tasks".'))
        row = await connection.fetchrow(OUTCOME.replace("public.", '"The Tasks".'))
        assert row is not None
        assert dict(row) == EXPECTED
    finally:
        await connection.close()


async def test_the_services_own_role_writes_with_an_empty_path(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    try:
        await connection.execute((FOLDER / "dba" / "roles.sql").read_text(encoding="utf-8"))
        await connection.execute("set role tasks_app; set search_path = ''")
        await connection.execute(WRITES)
        await connection.execute("reset role")
        assert await outcome(connection) == EXPECTED
    finally:
        await connection.close()
