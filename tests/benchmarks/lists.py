"""Measures the first page of every list at a million tasks: `python -m tests.benchmarks.lists [--rows N]`.

Prints the slowest lists, in milliseconds of the statements alone, and for each combination of viewer, sort and filters
the median over the filters' values. Filling takes a few minutes and 6 GB of disk, measuring some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from service.core.settings import Settings
from service.db import embedded, migrations, pool
from service.db.statements import FOLDER, read
from service.tasks import listing

SEED = FOLDER / "plans" / "seed.sql"
SORTS: list[Any] = list(read(FOLDER / "tasks" / "list.sql").texts)
EVERYTHING: dict[str, Any] = {
    "viewer_id": 1,
    "viewer_is_admin": True,
    "user_id": None,
    "status": None,
    "city": None,
    "created_from": None,
    "created_before": None,
    "after_value": None,
    "after_id": None,
    "row_limit": 21,
    "row_offset": 0,
}
OPEN = ["todo", "in_progress"]


def _day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


VIEWERS: dict[str, dict[str, Any]] = {
    "administrator": {},
    "heaviest user": {"viewer_id": 1, "viewer_is_admin": False},
    "median user": {"viewer_id": 500, "viewer_is_admin": False},
    "administrator on heaviest user": {"user_id": 1},
    "user without tasks": {"viewer_id": 10**9, "viewer_is_admin": False},
}
FILTERS: dict[str, dict[str, dict[str, Any]]] = {
    "status": {"": {}, "todo": {"status": ["todo"]}, "rare": {"status": ["in_progress"]}, "open": {"status": OPEN}},
    "city": {"": {}, "common": {"city": "City 0"}, "rare": {"city": "City 450"}, "unknown": {"city": "Nowhere"}},
    "created": {
        "": {},
        "last month": {"created_from": _day(2026, 10, 1)},
        "first month": {"created_before": _day(2024, 12, 1)},
        "a day": {"created_from": _day(2025, 5, 1), "created_before": _day(2025, 5, 2)},
        "half a year": {"created_from": _day(2025, 1, 1), "created_before": _day(2025, 7, 1)},
        "from the middle": {"created_from": _day(2026, 4, 1)},
        "to the middle": {"created_before": _day(2026, 4, 1)},
        "from the second day": {"created_from": _day(2024, 11, 2)},
        "never": {"created_from": _day(2027, 1, 1)},
    },
    "offset": {"": {}, "10000": {"row_offset": 10_000}},
}
# Of 70 % of all tasks, 17 %, 5 %, 0.6 %, 0.01 %, and none.
WORDS = ["lorem", "prepare", "topic0", "topic5", "topic1999", "nowhere", '"lorem topic5"', "prepare -lorem"]
SEARCHES: dict[str, dict[str, dict[str, Any]]] = {
    "sought": {word: {"sought": word} for word in WORDS},
    "created": {name: FILTERS["created"][name] for name in ("", "last month", "first month")},
}


def combinations() -> Iterator[tuple[str, Any, list[tuple[str, str]]]]:
    """Return each viewer, sort and choice of filters; searches come last."""
    for filters in (FILTERS, SEARCHES):
        for viewer, sort, *choice in itertools.product(VIEWERS, SORTS, *filters.values()):
            yield viewer, sort, [(name, word) for name, word in zip(filters, choice, strict=True) if word]


class Measured(NamedTuple):
    """The median milliseconds of one list, and which it was."""

    milliseconds: float
    words: str
    combination: tuple[str, ...]  # viewer, sort and the names of the filters, whatever their values


async def measure(url: str, *, repeats: int) -> list[Measured]:
    """Measure each list."""
    measured = []
    settings = Settings(database_pool_size=1, database_statement_timeout_ms=60_000)
    async with pool.connected(url, settings) as database:
        for viewer, sort, chosen in combinations():
            values = EVERYTHING | VIEWERS[viewer]
            for name, word in chosen:
                values |= (SEARCHES | FILTERS)[name][word]
            times = []
            for _ in range(repeats):
                begun = time.perf_counter()
                await listing.fetch_rows(database, sort=sort, **values)
                times.append((time.perf_counter() - begun) * 1000)
            words = [f"{name}={word}" for name, word in chosen]
            combination = (viewer, sort, *(name for name, _ in chosen))
            measured.append(Measured(statistics.median(times), ", ".join([viewer, sort, *words]), combination))
    return sorted(measured, reverse=True)


def report(what: str, measured: list[Measured]) -> None:
    """Print how long these lists took, one by one and by what they have in common."""
    times = [one.milliseconds for one in measured]
    over = ", ".join(f"over {limit} ms: {sum(time > limit for time in times)}" for limit in (25, 50))
    print(f"{len(times)} {what}: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms, {over}")
    together = defaultdict(list)
    for one in measured:
        together[one.combination].append(one.milliseconds)
    medians = {combination: statistics.median(times) for combination, times in together.items()}
    worst = max(medians, key=medians.__getitem__)
    print(
        f"   {len(medians)} combinations of filters, each a median: worst {medians[worst]:.1f} ms, {', '.join(worst)}"
    )


async def seed(url: str, *, rows: int) -> None:
    """Fill an empty database."""
    connection = await asyncpg.connect(url)
    for statement in filter(str.strip, SEED.read_text().replace(":rows", str(rows)).split(";\n")):
        await connection.execute(statement, timeout=3600)
    await connection.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder of a cluster that is kept from run to run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)) / "postgres"
        fresh = not folder.exists()
        with embedded.running(
            folder, options={"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB"}
        ) as url:
            migrations.migrate(url)
            if fresh:
                asyncio.run(seed(url, rows=arguments.rows))
            measured = asyncio.run(measure(url, repeats=arguments.repeats))
    for one in measured[:25]:
        print(f"{one.milliseconds:8.1f} ms  {one.words}")
    report("first pages", [one for one in measured if not {"offset", "sought"} & {*one.combination}])
    report("first pages of searches", [one for one in measured if "sought" in one.combination])
    report("pages at offset 10000", [one for one in measured if "offset" in one.combination])


if __name__ == "__main__":
    main()
