"""Measures the first page of every list at a million tasks: `python -m tests.load.lists [--rows N]`.

Prints each combination of viewer, filters and sort, slowest first, in milliseconds of the statement alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from service import db, embedded, migrations
from service.queries import q
from service.settings import Settings
from service.statements import FOLDER, read

SEED = Path(__file__).with_name("seed.sql")
SORTS = list(read(FOLDER / "tasks" / "list.sql").texts)
EVERYTHING: dict[str, Any] = {
    "viewer_id": 1, "viewer_is_admin": True, "user_id": None, "status": None, "city": None, "created_from": None,
    "created_before": None, "after_value": None, "after_id": None, "row_limit": 21, "row_offset": 0,
}
VIEWERS = {
    "administrator": {},
    "heaviest user": {"viewer_id": 1, "viewer_is_admin": False},
    "median user": {"viewer_id": 500, "viewer_is_admin": False},
    "administrator on heaviest user": {"user_id": 1},
    "user without tasks": {"viewer_id": 10**9, "viewer_is_admin": False},
}
FILTERS = {
    "status": {"all": None, "todo": ["todo"], "in_progress": ["in_progress"], "open": ["todo", "in_progress"]},
    "city": {"all": None, "common": "City 0", "rare": "City 450", "unknown": "Nowhere"},
    "created_from": {"all": None, "last month": datetime(2026, 10, 1, tzinfo=UTC), "none": datetime(2027, 1, 1, tzinfo=UTC)},
    "created_before": {"all": None, "first month": datetime(2024, 12, 1, tzinfo=UTC)},
    "row_offset": {"0": 0, "10000": 10_000},
}


async def measure(url: str, *, repeats: int) -> list[tuple[float, str]]:
    """Give the median milliseconds of each combination."""
    measured = []
    async with db.connected(url, Settings(database_pool_size=1)) as database, database.connection() as connection:
        for viewer, sort, *choice in itertools.product(VIEWERS, SORTS, *FILTERS.values()):
            filters = {name: FILTERS[name][word] for name, word in zip(FILTERS, choice, strict=True)}
            times = []
            for _ in range(repeats):
                begun = time.perf_counter()
                await q.tasks.list(connection, sort=sort, **EVERYTHING | VIEWERS[viewer] | filters)
                times.append((time.perf_counter() - begun) * 1000)
            words = [f"{name}={word}" for name, word in zip(FILTERS, choice, strict=True) if word not in {"all", "0"}]
            measured.append((statistics.median(times), " ".join([viewer, sort, *words])))
    return sorted(measured, reverse=True)


async def seed(url: str, *, rows: int) -> None:
    """Fill an empty database."""
    connection = await asyncpg.connect(url)
    for statement in filter(str.strip, SEED.read_text().replace(":rows", str(rows)).split(";\n")):
        await connection.execute(statement, timeout=600)
    await connection.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder of a cluster that is kept from run to run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)) / "postgres"
        fresh = not folder.exists()
        with embedded.running(folder, options={"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB"}) as url:
            migrations.migrate(url)
            if fresh:
                asyncio.run(seed(url, rows=given.rows))
            measured = asyncio.run(measure(url, repeats=given.repeats))
    for milliseconds, words in measured[:25]:
        print(f"{milliseconds:8.1f} ms  {words}")
    times = [milliseconds for milliseconds, _ in measured]
    print(f"{len(times)} combinations: median {statistics.median(times):.1f} ms, over 50 ms: {sum(t > 50 for t in times)}")


if __name__ == "__main__":
    main()
