"""Debian's PgBouncer in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest

from tests.conftest import as_service

WAIT_SECONDS = 20
SESSIONS = 2
CONFIG = """
[databases]
* = host={host} port={port} user={user}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
"""


@contextmanager
def bouncing(url: str, *, sessions: int = SESSIONS) -> Iterator[str]:
    """Yield the URL of a PgBouncer that shares `sessions` database sessions; skip the test if none is installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer")
    parts = urlsplit(as_service(url))
    query = parse_qs(parts.query)
    host = parts.hostname or query["host"][0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own_port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        config = folder / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(
                host=host,
                port=parts.port or query["port"][0],
                user=parts.username or "postgres",
                password=f" password={parts.password}" if parts.password else "",
                own_port=own_port,
                sessions=sessions,
            )
        )
        pooler_url = urlunsplit(("postgresql", f"any@127.0.0.1:{own_port}", parts.path, "", ""))
        command = [program, "-q", *_as_whom(Path(host)), str(config)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _await(pooler_url, process)
                yield pooler_url
            finally:
                process.kill()


def _as_whom(host: Path) -> list[str]:
    """Return the user option: PgBouncer refuses to run as root, and only its owner may use the embedded socket."""
    owner = pwd.getpwuid(host.stat().st_uid).pw_name if host.is_dir() else "nobody"
    return ["-u", owner] if os.geteuid() == 0 else []


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
