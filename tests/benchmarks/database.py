"""The PostgreSQL of the comparison: a cluster under `.bench/` that is filled once, and a fresh copy for each run."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil  # type: ignore[import-untyped]
import psycopg

from service.db import embedded, migrations
from tests.benchmarks.lists import SEED, seed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"
TWINS_SCHEMA = Path(__file__).parent / "twins" / "schema.sql"
TASKS = 1_000_000
# Durable as by default. No vacuum and no checkpoint falls into one block and not into another.
OPTIONS = {
    "shared_buffers": "512MB",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
}
TWINS_ROLE = "twins"
COPY, EMPTY = "bench", "bench_subscribers"


@dataclass(frozen=True)
class Cluster:
    """The running cluster, with a copy of the filled database and an empty one."""

    url: str
    postmaster: psutil.Process

    @property
    def service_url(self) -> str:
        """Return the URL of the filled database for the service."""
        return at(self.url, COPY)

    @property
    def empty_url(self) -> str:
        """Return the URL of a migrated database without tasks."""
        return at(self.url, EMPTY)

    @property
    def twins_url(self) -> str:
        """Return the URL of the filled database for the twins, whose role finds their schema first."""
        parts = urlsplit(self.service_url)
        return urlunsplit(parts._replace(netloc=f"{TWINS_ROLE}@{parts.netloc.rpartition('@')[2]}"))

    def pin(self, core: int) -> None:
        """Run PostgreSQL and all connections to come on one core."""
        for process in [*self.postmaster.children(), self.postmaster]:
            process.cpu_affinity([core])

    def cpu_seconds(self) -> dict[int, float]:
        """Return the CPU seconds of each backend of a client so far."""
        seconds = {}
        for process in self.postmaster.children():
            try:
                if f" {COPY} " in " ".join(process.cmdline()):
                    times = process.cpu_times()
                    seconds[process.pid] = float(times.user + times.system)
            except psutil.NoSuchProcess:
                continue
        return seconds


def at(url: str, database: str) -> str:
    """Return the URL of another database of the cluster."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@contextmanager
def prepared(*, tasks: int = TASKS) -> Iterator[Cluster]:
    """Start the cluster, fill it if that was not done for these migrations, and copy what it was filled with."""
    FOLDER.mkdir(exist_ok=True)
    with embedded.running(FOLDER / "postgres", options=OPTIONS) as url:
        postmaster = psutil.Process(int((FOLDER / "postgres" / "postmaster.pid").read_text().split()[0]))
        filled = f"filled_{tasks}_{_digest()}"
        with psycopg.connect(url, autocommit=True) as connection:
            names = {name for (name,) in connection.execute("select datname from pg_database")}
            if filled not in names:
                for old in names:
                    if old.startswith("fill"):
                        _drop(connection, old)
                _fill(connection, url, filled, tasks=tasks)
            for name in (COPY, EMPTY):
                _drop(connection, name)
            connection.execute(f"create database {COPY} template {filled} strategy file_copy".encode())
            connection.execute(f"create database {EMPTY}".encode())
            migrations.migrate(at(url, EMPTY))
            connection.execute("checkpoint")
        yield Cluster(url, postmaster)


def _digest() -> str:
    """Return what tells one content of the database from another."""
    sources = [*sorted((ROOT / "migrations").glob("*.sql")), SEED, TWINS_SCHEMA]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.execute(f"drop database if exists {name} with (force)".encode())


def _fill(connection: psycopg.Connection[tuple[object, ...]], url: str, filled: str, *, tasks: int) -> None:
    print(f"Filling {tasks:,} tasks: once for these migrations, some minutes.", flush=True)
    begun = time.monotonic()
    _drop(connection, "filling")
    connection.execute("create database filling")
    migrations.migrate(at(url, "filling"))
    asyncio.run(seed(at(url, "filling"), rows=tasks))
    if not connection.execute("select 1 from pg_roles where rolname = %s", [TWINS_ROLE]).fetchone():
        connection.execute(f"create role {TWINS_ROLE} login superuser".encode())
        connection.execute(f"alter role {TWINS_ROLE} set search_path = {TWINS_ROLE}".encode())
    with psycopg.connect(at(url, "filling"), autocommit=True) as filling:
        for statement in filter(str.strip, TWINS_SCHEMA.read_text().split(";\n")):
            filling.execute(statement.encode())
    connection.execute(f"alter database filling rename to {filled}".encode())
    print(f"Filled in {time.monotonic() - begun:.0f} s.", flush=True)
