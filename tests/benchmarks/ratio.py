"""Compares the CPU time of a GET with twin C's, in process: `python -m tests.benchmarks.ratio [--write]`.

Both applications run in this process on the same PostgreSQL and answer blocks of requests alternately. The ratio is the
median of the blocks' ratios. `--write` keeps it in `ratio.txt`; `tests/processes/test_cpu_ratio.py` compares with it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import asyncpg
import uvloop

from service.db import embedded, migrations
from tests.benchmarks.in_process import Request, cpu_seconds, service_running
from tests.benchmarks.twins.bare import Bare
from tests.support.factories import Factory
from tests.support.redis_server import RedisServer

KEPT = Path(__file__).with_name("ratio.txt")
BLOCKS, REQUESTS = 5, 160
BARE_REQUESTS = 4 * REQUESTS  # so that its blocks are not too short to be measured


async def measure(database_url: str, redis_url: str) -> float:
    """Return how many times the CPU time of C's GET the service's takes."""
    connection = await asyncpg.connect(database_url)
    async with service_running(database_url, redis_url) as app:
        make = Factory(connection, app)
        user = await make.user(username=f"ratio-{uuid4().hex[:12]}")
        path = f"/tasks/{await make.task(user, description='Monthly data', city='Moscow')}"
        bare = Bare(database_url, reader_id=user.id, author_id=user.id)
        await bare.open()
        ratios = []
        for _ in range(BLOCKS + 1):
            own = await cpu_seconds(app, Request("GET", path, user.token), number=REQUESTS)
            ratios.append(own / await cpu_seconds(bare, Request("GET", path), number=BARE_REQUESTS))
        await bare.close()
    await connection.close()
    return statistics.median(ratios[1:])  # the first block prepares statements and caches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", default="", help="of a migrated database; empty: an embedded PostgreSQL")
    parser.add_argument("--redis-url", default="", help="empty: a Redis of its own")
    parser.add_argument("--write", action="store_true", help="keep the ratio")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        database_url = arguments.database_url
        if not database_url:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            database_url = stack.enter_context(embedded.running(Path(folder, "pg"), options={"fsync": "off"}))
            migrations.migrate(database_url)
        redis_url = arguments.redis_url or stack.enter_context(RedisServer()).url
        ratio = uvloop.run(measure(database_url, redis_url))
    print(f"{ratio:.2f}")
    if arguments.write:
        KEPT.write_text(f"{ratio:.2f}\n")


if __name__ == "__main__":
    main()
