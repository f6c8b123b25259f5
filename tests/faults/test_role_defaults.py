"""What a role's or database's defaults say, and who locks a table, does not change what the service promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import pytest
from fastapi import FastAPI

from service.core.errors import UnavailableError
from service.db import pool
from service.db.pool import Database
from service.db.queries import q
from service.db.statements import Statement, read
from service.dba import catalog
from service.dba.explain import fetch_plan, nodes
from tests.conftest import as_service, make_settings
from tests.faults.test_database_outage import all_work, dba, equals, slow_tasks, started, until, waiting
from tests.support import clusters
from tests.support.bouncer import bouncing
from tests.support.clusters import Cluster
from tests.support.factories import Factory

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
AT_ONCE = 20
POOLED = pytest.mark.parametrize("pooled", [False, True], ids=["direct", "behind PgBouncer"])
ISOLATION = pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
READ_ONLY = {"default_transaction_read_only": "on"}
SEEN = """
    concat_ws(
        ' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'),
        current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('jit')
    )"""


async def default(sql: Sql, url: str, **settings: str) -> None:
    """Set defaults of the service's role; the sessions that are open keep theirs."""
    database = await sql.fetchval("select quote_ident(current_database())")
    role = urlsplit(as_service(url)).username
    for name, value in settings.items():
        await sql.execute(f"alter role {role} in database {database} set {name} = '{value}'")


@asynccontextmanager
async def reached(url: str, *, pooled: bool) -> AsyncIterator[dict[str, str]]:
    """Return the settings by which a service reaches the database, directly or through PgBouncer."""
    if not pooled:
        yield {"database_url": url}
        return
    with bouncing(url, sessions=2 * AT_ONCE) as through:
        yield {"database_url": through, "database_listen_url": as_service(url), "database_pooler": "transaction"}


@asynccontextmanager
async def serving(
    url: str, *, pooled: bool, defaults: dict[str, str], **values: Any
) -> AsyncIterator[tuple[FastAPI, Sql]]:
    """Start a service whose role has these defaults, and open a session that has none of them."""
    async with dba(url) as sql:
        await default(sql, url, **defaults)
        async with reached(url, pooled=pooled) as way:
            direct, pooler = way.get("database_listen_url", ""), way.get("database_pooler", "")
            async with started(
                way["database_url"], milliseconds=30_000, listen_url=direct, database_pooler=pooler, **values
            ) as app:
                yield app, sql


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for each other, however busy the machine is."""
    monkeypatch.setattr(pool, "LOCK_SECONDS", 30)


@pytest.mark.usefixtures("patient")
@POOLED
@ISOLATION
async def test_two_uploads_at_once_do_not_pass_the_quota(own_database_url: str, isolation: str, pooled: bool) -> None:
    defaults = {"default_transaction_isolation": isolation}
    async with serving(own_database_url, pooled=pooled, defaults=defaults, attachment_quota_bytes=10) as (app, sql):
        make = Factory(sql, app)
        ada = await make.user()
        paths = [f"/tasks/{await make.task(ada)}/attachments" for _ in range(2)]
        slot = f"(hashtextextended('attachments.quota', {ada.id}))"
        await sql.execute(f"select pg_advisory_lock{slot}")
        async with asyncio.TaskGroup() as group:
            uploads = [group.create_task(ada.client.post(path, files={"file": b"x" * 8})) for path in paths]
            await until(lambda: equals(waiting(sql), 2))
            await sql.execute(f"select pg_advisory_unlock{slot}")
        assert sorted(upload.result().status_code for upload in uploads) == [201, 413]
        assert await sql.fetchval("select sum(size) from attachments") == 8


@pytest.mark.usefixtures("patient")
@POOLED
@ISOLATION
async def test_changes_of_one_task_at_once_all_work(own_database_url: str, isolation: str, pooled: bool) -> None:
    defaults = {"default_transaction_isolation": isolation}
    async with serving(own_database_url, pooled=pooled, defaults=defaults, connections=AT_ONCE) as (app, sql):
        make = Factory(sql, app)
        ada = await make.user()
        task = await make.task(ada)
        async with asyncio.TaskGroup() as group, dba(own_database_url) as other, other.transaction():
            await other.execute("update tasks set city = 'Oslo'")
            changes = [
                group.create_task(ada.client.patch(f"/tasks/{task}", json={"title": f"Change {number}"}))
                for number in range(AT_ONCE)
            ]
            await until(lambda: equals(waiting(sql), AT_ONCE))
        assert [change.result().status_code for change in changes] == [200] * AT_ONCE
        assert await sql.fetchval("select version from tasks") == AT_ONCE + 2


@pytest.mark.usefixtures("patient")
@POOLED
@ISOLATION
async def test_one_of_several_concurrent_restores_works(own_database_url: str, isolation: str, pooled: bool) -> None:
    defaults = {"default_transaction_isolation": isolation}
    async with serving(own_database_url, pooled=pooled, defaults=defaults) as (app, sql):
        make = Factory(sql, app)
        ada = await make.user()
        task = await make.task(ada)
        await sql.execute("delete from tasks")
        slot = f"(hashtextextended('tasks.restore', {task}))"
        await sql.execute(f"select pg_advisory_lock{slot}")
        async with asyncio.TaskGroup() as group:
            restores = [group.create_task(ada.client.post(f"/tasks/{task}/restore")) for _ in range(8)]
            await until(lambda: equals(waiting(sql), 8))
            await sql.execute(f"select pg_advisory_unlock{slot}")
        assert sorted(restore.result().status_code for restore in restores) == [200] + [409] * 7
        assert await sql.fetchval("select count(*) from task_events where type = 'task.restored'") == 1


@POOLED
async def test_every_route_works_for_a_role_that_is_read_only_by_default(own_database_url: str, pooled: bool) -> None:
    async with serving(own_database_url, pooled=pooled, defaults=READ_ONLY) as (app, sql):
        await all_work(await Factory(sql, app).admin())


@POOLED
async def test_a_locked_table_delays_routes_that_do_not_need_it_by_seconds(own_database_url: str, pooled: bool) -> None:
    async with serving(own_database_url, pooled=pooled, defaults={}) as (app, sql):
        make = Factory(sql, app)
        ada = await make.user()
        task = await make.task(ada)
        assert (await ada.client.get("/auth/me")).status_code == 200
        async with slow_tasks(own_database_url), asyncio.TaskGroup() as group:
            reads = [group.create_task(ada.client.get(f"/tasks/{task}")) for _ in range(14)]
            await until(lambda: equals(waiting(sql), 10))
            begun = time.monotonic()
            answer = await ada.client.get("/auth/me")
            assert answer.status_code == 200
            assert time.monotonic() - begun < pool.LOCK_SECONDS + 1.5
        for one in reads:
            assert one.result().status_code == 503
            assert int(one.result().headers["Retry-After"]) >= 1


@POOLED
async def test_every_way_to_run_a_statement_has_the_services_settings(
    own_database_url: str, tmp_path: Path, pooled: bool
) -> None:
    def statement(text: str, returns: str = "value") -> Statement:
        path = tmp_path / "seen.sql"
        path.write_text(f"-- What the session says.\n-- returns: {returns}\n{text};\n", encoding="utf-8")
        return read(path, folder=tmp_path)

    reads = statement(f"select {SEEN} as seen")
    writes = statement(f"with changed as (\n    update users\n    set role = role\n)\n\nselect {SEEN} as seen")
    streams = statement(f"select {SEEN} as seen", "stream")
    hostile = {
        "default_transaction_isolation": "serializable",
        "statement_timeout": "7s",
        "lock_timeout": "7s",
        "jit": "on",
        **READ_ONLY,
    }
    async with dba(own_database_url) as sql:
        await default(sql, own_database_url, **hostile)
        async with reached(own_database_url, pooled=pooled) as way:
            settings = make_settings(**way, database_statement_timeout_ms=900)
            url = settings.database_url.get_secret_value()
            async with pool.connected(url, settings, pooler=settings.database_pooler) as database:
                ours, snapshot = "read committed off 900ms 2s off", "repeatable read on 900ms 2s off"
                assert await writes(database) == ours
                async with database.transaction() as transaction:
                    assert await reads(transaction) == ours
                async with database.snapshot() as connection:
                    assert await reads(connection) == snapshot
                assert [row["seen"] async for rows in streams.stream(database) for row in rows] == [snapshot]
                # A standby refuses transactions that say that they write, so that those of reads do not say it.
                assert await reads(database) == (ours.replace("off", "on", 1) if pooled else ours)
                if pooled:
                    async with database.connection() as connection:  # nothing is left for the pooler's next client
                        assert await connection.fetchval(f"select {SEEN}") == "serializable on 7s 7s on"


async def test_writes_and_locks_are_detected_in_the_text_of_a_statement(own_database_url: str) -> None:
    async with dba(own_database_url) as sql:
        for entry in await catalog.entries(sql):
            if entry.prepared.is_prepared:
                types = entry.prepared.parameters
                found = {node["Node Type"] for node in nodes(await fetch_plan(sql, entry.statement, types=types))}
                assert entry.statement.writes is bool(found & {"ModifyTable", "LockRows"}), entry.statement.name


@pytest.fixture
async def standby(cluster: Cluster, folder: Path) -> AsyncIterator[str]:
    with clusters.running(clusters.base_backup(cluster, folder / "standby")) as standby:
        yield standby.url


@POOLED
async def test_a_standby_answers_reads_and_is_unavailable_for_writes(standby: str, pooled: bool) -> None:
    async def create(database: Database) -> None:
        await q.accounts.create(database, username="ada", password_hash="", role="user")

    async def create_together(database: Database) -> None:
        async with database.transaction() as transaction:
            await q.accounts.create(transaction, username="ada", password_hash="", role="user")

    async with AsyncExitStack() as stack:
        settings = make_settings(**await stack.enter_async_context(reached(standby, pooled=pooled)))
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(pool.connected(url, settings, pooler=settings.database_pooler))
        assert await q.accounts.has_admin(database) is False
        for write in (create, create_together):
            with pytest.raises(UnavailableError, match="away"):
                await write(database)
        assert await q.accounts.has_admin(database) is False
