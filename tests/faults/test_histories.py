"""Positions outlive a crash, and a database that has lost what a listener has seen says so."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from service.core.pagination import Cursors
from service.db.queries import q
from service.events.log import EventLog, Page
from service.events.position import Position
from tests.conftest import SECRET_KEY
from tests.support import clusters
from tests.support.clusters import Cluster

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
EVENT_LOG = EventLog(Cursors((SECRET_KEY,)))


@asynccontextmanager
async def dba(cluster: Cluster) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(cluster.url)
    try:
        yield connection
    finally:
        connection.terminate()


async def write(sql: Sql, *, tasks: int = 1, begun: bool = False) -> list[int]:
    """Commit tasks, each in a transaction of its own, and return the ids of their events."""
    await sql.execute("insert into users (username, password_hash) values ('ada', '') on conflict do nothing")
    last = await sql.fetchval("select coalesce(max(id), 0) from task_events")
    for _ in range(tasks):
        await sql.execute("insert into tasks (user_id, title) select min(id), 'By hand' from users")
    return [row["id"] for row in await sql.fetch("select id from task_events where id > $1 order by id", last)]


async def follow(sql: Sql, position: Position) -> Page:
    """Read all that is new, as one page."""
    page = await EVENT_LOG.page(sql, position, max_bytes=1 << 20)
    events = list(page.events)
    while page.more:
        page = await EVENT_LOG.page(sql, page.position, max_bytes=1 << 20)
        events += page.events
    return Page(events, page.position, reset=page.reset)


def ids(page: Page) -> list[int]:
    assert not page.reset
    return [event.id for event in page.events]


async def xid(sql: Sql) -> int:
    return int(await sql.fetchval("select pg_current_xact_id()::text"))


async def burn(sql: Sql, *, until: int) -> None:
    """Use up transaction ids."""
    await sql.execute(
        "do $$ begin while pg_current_xact_id()::text::bigint <= %d loop commit; end loop; end $$" % until  # noqa: UP031
    )


async def test_commits_that_got_a_crashed_transactions_id_are_new(seed: Path, folder: Path) -> None:
    # The log's writer sleeps: what transactions that are rolled back have written is lost with the crash.
    with clusters.running(clusters.copy(seed, folder / "pg"), wal_writer_delay="10s") as cluster:
        async with dba(cluster) as sql:
            await write(sql, tasks=3)
            for _ in range(30):
                slot = sql.transaction()
                await slot.start()
                await sql.execute("insert into tasks (user_id, title) select id, 'never' from users")
                rolled_back = await xid(sql)
                await slot.rollback()
            position = await EVENT_LOG.current_position(sql)
        cluster.crash()
        cluster.start()
        async with dba(cluster) as sql:
            written = await write(sql, tasks=10)
            reused = await sql.fetchval("select min(xid::text::bigint) from task_events where id = any($1)", written)
            assert reused <= rolled_back, "the crash lost nothing: the drill says nothing"
            assert ids(await follow(sql, position)) == written


async def test_a_crash_rolls_back_open_transactions_and_loses_no_commit(cluster: Cluster) -> None:
    async with dba(cluster) as sql, dba(cluster) as other:
        position = await EVENT_LOG.current_position(sql)
        first = await write(sql)
        await other.execute("begin; insert into tasks (user_id, title) select id, 'never' from users")
        second = await write(sql)
        middle = (await follow(sql, position)).position
        third = await write(sql)
        cluster.crash()
    cluster.start()
    async with dba(cluster) as sql:
        fourth = await write(sql)
        assert ids(await follow(sql, position)) == first + second + third + fourth
        assert ids(await follow(sql, middle)) == third + fourth


async def restored(source: Cluster, target: Cluster) -> None:
    dump = target.folder.with_name("dump.sql")
    dump.write_text(clusters.program("pg_dump", source.url))
    clusters.program("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={dump}", target.url)


async def test_a_dump_in_a_new_cluster_resets_positions_and_its_old_events_stay_old(
    cluster: Cluster, folder: Path
) -> None:
    async with dba(cluster) as sql:
        await write(sql, tasks=5)
        await burn(sql, until=await xid(sql) + 3000)
        await write(sql, tasks=5)
        future = await xid(sql)
        old = await EVENT_LOG.current_position(sql)
    with clusters.running(folder / "new") as new:
        await restored(cluster, new)
        async with dba(new) as sql:
            assert await xid(sql) < future - 1000
            # Before a listener has come: who reads now does not take the other cluster's transactions for new ones.
            reset = await follow(sql, old)
            assert reset.reset
            assert ids(await follow(sql, reset.position)) == []
            ahead = "select count(*) from task_events where xid >= pg_snapshot_xmax(pg_current_snapshot())"
            count = await sql.fetchval(ahead)
            assert count >= 5
            assert [await q.events.repair_future_xids(sql, row_limit=count + 1) for _ in range(2)] == [count, 0]
            here = await EVENT_LOG.current_position(sql)
            await burn(sql, until=future)
            assert ids(await follow(sql, reset.position)) == []
            assert ids(await follow(sql, here)) == []
            written = await write(sql, tasks=2)
            assert ids(await follow(sql, reset.position)) == written
            assert (await follow(sql, old)).reset


@pytest.mark.parametrize("written_since", [0, 3, 8], ids=["nothing", "less", "more"])
async def test_a_volume_put_back_resets_the_positions_of_the_future_that_it_lost(
    seed: Path, folder: Path, written_since: int
) -> None:
    here = clusters.copy(seed, folder / "pg")
    with clusters.running(here) as cluster:
        async with dba(cluster) as sql:
            await write(sql, tasks=3)
            kept = await EVENT_LOG.current_position(sql)
    kept_volume = clusters.copy(here, folder / "snapshot")
    with clusters.running(here) as cluster:
        async with dba(cluster) as sql:
            await write(sql, tasks=5)
            lost = await EVENT_LOG.current_position(sql)
            half_read = (await EVENT_LOG.page(sql, kept, max_rows=2, max_bytes=1 << 20)).position
    shutil.rmtree(here)
    kept_volume.rename(here)
    with clusters.running(here) as cluster:
        async with dba(cluster) as sql:
            written = await write(sql, tasks=written_since)
            assert (await follow(sql, lost)).reset
            assert (await follow(sql, half_read)).reset
            assert ids(await follow(sql, kept)) == written


async def promoted(cluster: Cluster) -> None:
    async with dba(cluster) as sql:
        assert await sql.fetchval("select pg_promote()")


async def test_a_promoted_standby_resets_positions(cluster: Cluster, folder: Path) -> None:
    async with dba(cluster) as sql:
        await write(sql, tasks=3)
        old = await EVENT_LOG.current_position(sql)
        with clusters.running(clusters.base_backup(cluster, folder / "standby")) as standby:
            await promoted(standby)
            async with dba(standby) as there:
                reset = await follow(there, old)
                assert reset.reset
                written = await write(there, tasks=3)
                assert ids(await follow(there, reset.position)) == written
        assert ids(await follow(sql, old)) == []
