"""Measures exports at a million tasks: `python -m tests.benchmarks.exports [--rows N] [--keep FOLDER]`.

Starts the service in a process of its own and reads everything in both forms, as an administrator and as fast as it
comes. Prints for each how many rows a second those are, and the memory of the service before and at its highest.
The folder is that of `tests.benchmarks.lists`, whose tasks these are.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from service.db import embedded, migrations
from tests.benchmarks.lists import seed
from tests.support.servers import WAIT_SECONDS, Server, run, serving

OPTIONS = {"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB"}
PASSWORD = "correct horse battery staple"
LAST_CHUNK = b"\r\n0\r\n\r\n"
POLL_SECONDS = 0.05


def token(folder: Path, server: Server, url: str) -> str:
    """Return the token of a new administrator."""
    name = f"exports-{time.time_ns()}"
    run(folder, "create-admin", name, "--password-stdin", stdin_text=PASSWORD, DATABASE_URL=url).check_returncode()
    with server.client() as client:
        answer = client.post("/auth/login", json={"username": name, "password": PASSWORD})
    return str(answer.raise_for_status().json()["access_token"])


def export(server: Server, access_token: str, *, form: str) -> tuple[float, int, int]:
    """Read one export to its end; return the seconds, the bytes, and the highest memory of the service meanwhile."""
    process = psutil.Process(server.process.pid)
    size, highest, looked, end = 0, 0, 0.0, b""
    with server.dial() as connection:
        begun = time.perf_counter()
        head = f"GET /tasks/export?format={form} HTTP/1.1\r\nHost: load\r\nAuthorization: Bearer {access_token}\r\n\r\n"
        connection.sendall(head.encode())
        connection.settimeout(WAIT_SECONDS)
        while not end.endswith(LAST_CHUNK):
            data = connection.recv(1 << 18)
            assert data, "broken off"
            size += len(data)
            end = (end + data)[-len(LAST_CHUNK) :]
            if time.perf_counter() - looked > POLL_SECONDS:
                highest, looked = max(highest, process.memory_info().rss), time.perf_counter()
        return time.perf_counter() - begun, size, highest


def measure(folder: Path, url: str, *, rounds: int) -> None:
    """Measure, and print."""
    with serving(folder, DATABASE_URL=url, RATE_LIMIT_PER_MINUTE="0") as server:
        access_token = token(folder, server, url)
        with server.client(access_token) as client:
            rows = client.get("/tasks", params={"count": "exact", "limit": 1}).raise_for_status().json()["total"]
        before = psutil.Process(server.process.pid).memory_info().rss
        print(f"{rows} rows; the service holds {before / 1e6:.0f} MB")
        for form in ["ndjson", "csv"] * rounds:
            seconds, size, highest = export(server, access_token, form=form)
            print(
                f"{form:7} {rows / seconds:9.0f} rows/s   {size / seconds / 1e6:6.1f} MB/s"
                f"   {seconds:5.1f} s   {highest / 1e6:.0f} MB at most",
                flush=True,
            )


def main() -> None:
    """Fill where there is nothing yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder of a cluster that is kept from run to run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)) / "postgres"
        fresh = not folder.exists()
        with embedded.running(folder, options=OPTIONS) as url:
            migrations.migrate(url)
            if fresh:
                asyncio.run(seed(url, rows=arguments.rows))
            measure(Path(temporary), url, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
