"""Measures polls of a million events: `python -m tests.benchmarks.polls [--events N] [--repeats N]`.

Prints the milliseconds of each kind of poll as the service runs it, planning included: the statement `events.page` and
the reading of its rows. Then those of retention. Filling takes a minute and 1 GB of disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from service.core.pagination import Cursors
from service.core.settings import Settings
from service.core.viewer import Viewer
from service.db import embedded, migrations, pool
from service.db.pool import Connection
from service.db.queries import q
from service.events.log import ALL_TASKS_VIEWER, MAX_PAGE_ROWS, EventLog, Page
from service.events.position import Position

BYTES = 4 * 1024 * 1024
TRANSACTION_EVENTS = 100
HEAVY, LIGHT, NOBODY = (Viewer(id=n, is_admin=False) for n in (1, 999, 10**9))
FILL = """
do $$
begin
    for n in 1..{transactions} loop
        insert into task_events (type, task_id, user_id, actor_id, at, changes, task, size)
        select
            'task.updated',
            1 + floor(100000 * random()),
            1 + floor(1000 * power(random(), 3)),
            1,
            now() - interval '80 days' + interval '80 days' * n / {transactions},
            '{{"status" : ["todo", "done"]}}',
            json_build_object('id', n, 'title', 'Report', 'status', 'done', 'description', repeat('lorem ', 30)),
            300
        from generate_series(1, {events});
        commit;
    end loop;
end $$
"""
ONE = """
insert into task_events (type, task_id, user_id, task, size)
values ('task.created', 1, $1, '{"id" : 1, "status" : "todo"}', 30)
"""


async def fill(connection: Connection, *, events: int) -> None:
    """Write events, in many transactions."""
    statement = FILL.format(transactions=events // TRANSACTION_EVENTS, events=TRANSACTION_EVENTS)
    await connection.execute(statement, timeout=600)
    await connection.execute("vacuum analyze task_events", timeout=600)


class Polls:
    """Polls of the event log whose times are printed."""

    def __init__(self, event_log: EventLog, connection: Connection, *, repeats: int) -> None:
        self.event_log = event_log
        self._connection = connection
        self._repeats = repeats

    async def here(self) -> Position:
        """Return the present position."""
        return await self.event_log.current_position(self._connection)

    async def page(self, position: Position, viewer: Viewer) -> Page:
        """Poll once."""
        return await self.event_log.page(
            self._connection, position, viewer=viewer, max_rows=MAX_PAGE_ROWS, max_bytes=BYTES
        )

    async def measure(self, what: str, position: Position, *, viewer: Viewer = ALL_TASKS_VIEWER) -> Page:
        """Repeat the same poll and print its times; return the last page."""
        page = await self.page(position, viewer)
        await self.timed(what, lambda: self.page(position, viewer), of=f"{len(page.events)} events")
        return page

    async def timed(self, what: str, work: Callable[[], Awaitable[object]], *, of: str = "") -> None:
        """Repeat the work and print its median and worst time, in milliseconds."""
        times = []
        for _ in range(self._repeats):
            begun = time.perf_counter()
            await work()
            times.append((time.perf_counter() - begun) * 1000)
        print(f"  {what:52} median {statistics.median(times):7.2f} ms   worst {max(times):7.2f} ms   {of}", flush=True)


async def measure(url: str, *, events: int, repeats: int) -> None:
    """Fill, measure, and measure again while a transaction stays open."""
    writer = await asyncpg.connect(url)
    async with pool.connected(url, Settings(database_pool_size=1)) as database, database.connection() as connection:
        polls = Polls(EventLog(Cursors(("k" * 32,))), connection, repeats=repeats)
        await writer.execute(ONE, HEAVY.id)
        origin = await polls.here()
        await fill(writer, events=events // 2)
        middle = await polls.here()
        await fill(writer, events=events // 2)
        print(f"{events} events")
        await series(polls, writer, origin, middle)
        late = await asyncpg.connect(url)
        async with late.transaction():
            await late.execute(ONE, HEAVY.id)
            print("while a transaction that has written stays open")
            await series(polls, writer, origin, middle)
        await late.close()
        print("retention")
        await polls.timed("nothing is old", lambda: q.events.expire(connection, days=90, row_limit=1000))
        await polls.timed("a batch of 1000", lambda: q.events.expire(connection, days=30, row_limit=1000))
    await writer.close()


async def series(polls: Polls, writer: Connection, origin: Position, middle: Position) -> None:
    """Measure each kind of poll."""
    here = await polls.here()
    await polls.measure("live, nothing new", here)
    await polls.measure("live, nothing new, a user", here, viewer=HEAVY)
    await writer.execute(ONE, HEAVY.id)
    await polls.measure("one event ago", here)
    await polls.measure("one event ago, its user", here, viewer=HEAVY)
    for name, position in {"from the first event": origin, "from the middle": middle}.items():
        await polls.measure(f"{name}, a user with none", position, viewer=NOBODY)
        await polls.measure(f"{name}, a light user", position, viewer=LIGHT)
        await polls.measure(f"{name}, the heaviest user", position, viewer=HEAVY)
        page = await polls.measure(f"{name}, an administrator", position)
        await polls.measure(f"{name}, an administrator's next page", page.position)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    options = {"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB"}
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg"), options=options) as url:
        migrations.migrate(url)
        asyncio.run(measure(url, events=arguments.events, repeats=arguments.repeats))


if __name__ == "__main__":
    main()
