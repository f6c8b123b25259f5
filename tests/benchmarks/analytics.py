"""Measures analytics of 30 days at a million tasks: `python -m tests.benchmarks.analytics [--rows N] [--keep FOLDER]`.

Prints how long an administrator's `analytics.summary` takes and how many a second four callers at once get, and beside
it the plain way to the same counts, a `group by` for each: off an index on created_at alone, from copies whose rows
lie in the order of their creation, as they do while nothing is changed, in the order of their last change, since an
update writes a new version of its row, and anywhere; and without an index. Everything is in memory; each round asks
all, one after the other.
The folder is that of `tests.benchmarks.lists`, whose tasks these are.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

import asyncpg
import orjson

from service.core.settings import Settings
from service.db import embedded, migrations
from service.db import pool as db
from service.db.pool import Database
from service.db.queries import q
from tests.benchmarks.lists import seed

OPTIONS = {"fsync": "off", "shared_buffers": "2GB", "max_wal_size": "4GB"}
PERIOD = (datetime(2026, 10, 2, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
COPIES = {
    "plain, in the order of creation": ("plain_created", "id"),
    "plain, in the order of changes": ("plain_changed", "updated_at"),
    "plain, anywhere": ("plain_anywhere", "md5(id::text)"),
}
CALLERS = 4
COPY = """
drop table if exists {table};
create table {table} as select * from tasks order by {order};
create index on {table} (created_at);
vacuum analyze {table}
"""
BY_STATUS = """
select t.status, count(*)
from {table} as t
where t.created_at >= $1 and t.created_at < $2
group by t.status
"""
BY_USER = """
select u.username, count(*)
from {table} as t
inner join users as u on t.user_id = u.id
where t.created_at >= $1 and t.created_at < $2
group by u.username
"""

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Way: TypeAlias = Callable[[], Awaitable[list[dict[str, int]]]]


async def copy(connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
    """Make the tables that have no index but the plain one."""
    for table, order in COPIES.values():
        for statement in COPY.format(table=table, order=order).split(";"):
            await connection.execute(statement, timeout=600)


async def summary(database: Database) -> list[dict[str, int]]:
    """Run the service's statement; return the counts by status and by user."""
    row = await q.analytics.summary(
        database, viewer_id=1, viewer_is_admin=True, user_id=None, created_from=PERIOD[0], created_before=PERIOD[1]
    )
    return list(orjson.loads(orjson.dumps(dict(row))).values())


async def plain(pool: Pool, table: str) -> list[dict[str, int]]:
    """Run one `group by` for each of the same counts; return both."""
    async with pool.acquire() as connection:
        texts = (text.format(table=table) for text in (BY_STATUS, BY_USER))
        return [dict(map(tuple, await connection.fetch(text, *PERIOD))) for text in texts]


async def seconds_of(ask: Way, *, callers: int) -> float:
    """Return the seconds until each of the callers has its answer."""
    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(callers)))
    return time.perf_counter() - begun


async def measure(url: str, *, rounds: int) -> None:
    """Measure and print."""
    without_index = {"enable_indexscan": "off", "enable_bitmapscan": "off"}
    async with (
        asyncpg.create_pool(url, min_size=CALLERS, max_size=CALLERS) as pool,
        asyncpg.create_pool(url, min_size=CALLERS, max_size=CALLERS, server_settings=without_index) as scanning,
        db.connected(url, Settings(database_pool_size=CALLERS)) as database,
    ):
        async with pool.acquire() as connection:
            await copy(connection)
        ways: dict[str, Way] = {"analytics.summary": partial(summary, database)}
        ways |= {way: partial(plain, pool, table) for way, (table, _) in COPIES.items()}
        ways["plain, without an index"] = partial(plain, scanning, "plain_created")
        results = [await ask() for ask in ways.values()]
        assert results.count(results[0]) == len(ways), "the ways give different figures"
        alone: dict[str, list[float]] = {way: [] for way in ways}
        together: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, ask in ways.items():
                alone[way].append(await seconds_of(ask, callers=1))
                together[way].append(await seconds_of(ask, callers=CALLERS))
    print(f"{sum(results[0][0].values())} tasks in the period; of {rounds} rounds the medians")
    print(f"{'':34} {'one caller':>16} {f'{CALLERS} callers':>22}")
    first = "analytics.summary"
    for way in ways:
        one, all_of_them = statistics.median(alone[way]), statistics.median(together[way])
        print(
            f"{way:34} {one * 1000:7.1f} ms {one / statistics.median(alone[first]):5.1f}"
            f" {CALLERS / all_of_them:10.1f} a second {all_of_them / statistics.median(together[first]):5.1f}"
        )


def main() -> None:
    """Fill where there is nothing yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, help="folder of a cluster that is kept from run to run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)) / "postgres"
        fresh = not folder.exists()
        with embedded.running(folder, options=OPTIONS) as url:
            migrations.migrate(url)
            if fresh:
                asyncio.run(seed(url, rows=arguments.rows))
            asyncio.run(measure(url, rounds=arguments.rounds))


if __name__ == "__main__":
    main()
