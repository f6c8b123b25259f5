"""Measures listening: `python -m tests.benchmarks.events [--listeners N] [--max-listeners N] [--seconds N]`.

Runs the service as a process of its own, alone on one core; database, writer and listeners share the other. Prints, for
frames that are made once and written to each connection, and for plain sending beside it: CPU of the idle process, time
from a change to its frame, CPU of each message and memory of each connection under load. A change's time is taken in
the database before its commit. All listeners hear of every event.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg

from service.db import embedded, migrations
from tests.benchmarks.listeners import Crowd, crowd
from tests.support.servers import ADDRESS, environment, until

SERVICE_CORE, OTHERS_CORE = 0, 1
FEW, IDLE_SECONDS = 10, 8
ADMIN = {"username": "load", "password": "correct horse battery"}
DIRECT, PLAIN = "service", "tests.benchmarks.plain"
WRITE = """
insert into tasks (user_id, title, description, city)
select id, 'Prepare Report', 'Monthly data', 'Moscow' from users
"""

Write = Callable[[], object]


class Service:
    """The process under measurement."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.url = url
        self._process = psutil.Process(process.pid)
        self._process.cpu_affinity([SERVICE_CORE])

    @property
    def address(self) -> tuple[str, int]:
        host, port = urlsplit(self.url).netloc.split(":")
        return host, int(port)

    def cpu(self) -> float:
        """Return the CPU time that the process has used, in seconds."""
        cpu_times = self._process.cpu_times()
        return float(cpu_times.user + cpu_times.system)

    def memory(self) -> int:
        """Return its own bytes."""
        return int(self._process.memory_full_info().uss)

    def idle(self, *, seconds: float = IDLE_SECONDS) -> float:
        """Return the share of the core that it takes when nothing happens."""
        begun, before = time.monotonic(), self.cpu()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - begun)


@contextmanager
def running(module: str, database: str) -> Iterator[Service]:
    """Start the service; whatever happens, it is gone afterwards."""
    admin_variables = {f"ADMIN_{name.upper()}": value for name, value in ADMIN.items()}
    unlimited = {
        "RATE_LIMIT_PER_MINUTE": "0",
        "MAX_SUBSCRIPTIONS_PER_USER": "100000",
        "LOGIN_LIMIT_PER_MINUTE": "0",
        "ACCESS_TOKEN_MINUTES": "60",
    }
    with tempfile.TemporaryDirectory() as folder:
        stdout = Path(folder, "stdout")
        with stdout.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "serve"],
                cwd=folder,
                env=environment(DATABASE_URL=database, **admin_variables, **unlimited),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: ADDRESS.search(stdout.read_text()) or process.poll() is not None)
            found = ADDRESS.search(stdout.read_text())
            assert found, stdout.read_text()
            yield Service(process, found[1])
        finally:
            process.kill()
            process.wait()


def every(seconds: float, write: Write, *, number: int) -> None:
    """Write evenly."""
    begun = time.monotonic()
    for n in range(number):
        time.sleep(max(0.0, begun + n * seconds - time.monotonic()))
        write()


def say(what: str, late: list[float]) -> None:
    """Print how late events came."""
    p50, p99, last = (late[min(len(late) - 1, int(len(late) * part))] * 1000 for part in (0.5, 0.99, 1))
    print(f"  {what:44} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   last {last:6.1f} ms", flush=True)


def latency(listeners: Crowd, what: str, write: Write, *, number: int) -> None:
    """Measure single changes, with nothing else going on."""
    every(0.1037, write, number=number)  # at ever other moments between two looks of a second
    say(f"change to frame, idle, {what}", listeners.heard(number * FEW, seconds=10))


def load(service: Service, listeners: Crowd, write: Write, *, number: int, seconds: int, idle: float) -> float:
    """Measure twenty events a second to everyone; return the CPU seconds of a message."""
    every(0.05, write, number=20)
    listeners.heard(20 * number, seconds=30)
    before, begun = service.cpu(), time.monotonic()
    every(0.05, write, number=20 * seconds)
    late = listeners.heard(20 * seconds * number, seconds=30)
    cpu_seconds = service.cpu() - before - idle * (time.monotonic() - begun)
    say(f"{number} listeners, 20 events/s", late)
    print(f"  {'CPU of a message':44} {cpu_seconds / len(late) * 1e6:10.1f} µs", flush=True)
    return cpu_seconds / len(late)


def is_ready(client: httpx.Client) -> bool:
    """Return whether the service can serve."""
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def measure(service: Service, write: Write, *, arguments: argparse.Namespace, direct: bool) -> None:
    """Measure one way of sending."""
    client = httpx.Client(base_url=service.url)
    until(lambda: is_ready(client))
    token = client.post("/auth/login", json=ADMIN).json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    with crowd(service.address, token, core=OTHERS_CORE) as listeners:
        if direct:
            print(f"  {'idle, nobody listens':44} {service.idle():10.2%} of a core", flush=True)
        listeners.grow(FEW)
        few = service.memory()
        if direct:
            latency(listeners, "written in SQL", write, number=arguments.changes)
            body = {"title": "Prepare Report", "description": "Monthly data", "city": "Moscow"}
            latency(listeners, "through the API", lambda: client.post("/tasks", json=body), number=arguments.changes)
        begun = time.monotonic()
        listeners.grow(arguments.listeners)
        took = time.monotonic() - begun
        print(f"  {f'{arguments.listeners} listeners connected in':44} {took:10.1f} s")
        kept = (service.memory() - few) / (arguments.listeners - FEW) / 1024
        print(f"  {'memory of a connection':44} {kept:10.1f} KiB")
        idle = service.idle()
        print(f"  {f'idle, {arguments.listeners} listen':44} {idle:10.2%} of a core", flush=True)
        load(service, listeners, write, number=arguments.listeners, seconds=arguments.seconds, idle=idle)
        kept = (service.memory() - few) / (arguments.listeners - FEW) / 1024
        print(f"  {'memory of a connection after the load':44} {kept:10.1f} KiB", flush=True)
        if direct and arguments.max_listeners:
            listeners.grow(arguments.max_listeners)
            every(1, write, number=5)
            say(
                f"{arguments.max_listeners} listeners, one event a second",
                listeners.heard(5 * arguments.max_listeners, seconds=30),
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--max-listeners", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--changes", type=int, default=200)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {OTHERS_CORE})
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder, "pg"), options={"fsync": "off"}) as url,
    ):
        migrations.migrate(url)
        for module, title in {DIRECT: "frames made once", PLAIN: "plain sending"}.items():
            print(title)
            with running(module, url) as service, psycopg.connect(url, autocommit=True) as connection:
                measure(service, lambda: connection.execute(WRITE), arguments=arguments, direct=module == DIRECT)


if __name__ == "__main__":
    main()
