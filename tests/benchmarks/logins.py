"""Measures whether reads stay quick during log-ins: `python -m tests.benchmarks.logins [--seconds N] [--log-ins N]`.

Serves the application in a process of its own on a PostgreSQL of its own, and reads pages of tasks at an even pace,
first alone, then while so many accounts log in all the time, then alone again. Prints for each how long the pages took
and how late the service's event loop was, as a task of its own in it sees that every 5 ms. Then it prints what it costs
a request that who asks is verified: remembered, and asked of the database.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from loguru import logger
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.db import embedded, migrations
from service.events.signals import Heartbeat
from tests.conftest import make_settings

PASSWORD = "correct horse battery staple"
PROBE_SECONDS = 0.005
READERS, PAUSE_SECONDS = 5, 0.1
IS_FRESH = Heartbeat.is_fresh
REQUESTS, ROUNDS = 50, 5


class Probed:
    """The application, and beside it: how late the event loop was, and whether what is remembered is believed."""

    def __init__(self, app: Any) -> None:
        self._app: ASGIApp = app
        self._late: list[float] = []
        self._probe: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        self._probe = self._probe or asyncio.create_task(self._measure_delays())
        match scope.get("path"):
            case "/probe/late":
                late, self._late = self._late, []
                await JSONResponse(late)(scope, receive, send)
            case "/probe/doubt" | "/probe/believe" as how:
                setattr(Heartbeat, "is_fresh", IS_FRESH if how == "/probe/believe" else lambda _self: False)  # noqa: B010
                await JSONResponse(how)(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _measure_delays(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(PROBE_SECONDS)
            self._late.append(1000 * (time.perf_counter() - begun - PROBE_SECONDS))


def serve(url: str, port: int) -> None:
    """Serve until told to stop; no log, whose lines would be a share of what is measured."""
    logger.remove()
    app = Probed(create_app(make_settings(url)))
    uvicorn.run(app, port=port, log_level="error", access_log=False, loop="uvloop")


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Start PostgreSQL and the service; return the service's address."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = stack.enter_context(embedded.running(Path(folder, "pg")))
        migrations.migrate(url)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.logins", "--serve", url, str(port)])
        try:
            deadline = time.monotonic() + 60
            while not _ready(f"http://127.0.0.1:{port}"):
                if time.monotonic() > deadline:
                    raise TimeoutError("the service does not start")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


async def _log_ins(client: httpx.AsyncClient, name: str, over: asyncio.Event, seen: list[int]) -> None:
    while not over.is_set():
        answer = await client.post("/auth/login", json={"username": name, "password": PASSWORD})
        seen.append(answer.status_code)


async def _reads(client: httpx.AsyncClient, over: asyncio.Event, took: list[float]) -> None:
    while not over.is_set():
        begun = time.perf_counter()
        answer = await client.get("/tasks")
        took.append(1000 * (time.perf_counter() - begun))
        assert answer.status_code == 200
        await asyncio.sleep(PAUSE_SECONDS)


def _summary(values: list[float]) -> str:
    values = sorted(values)
    at = [values[int(len(values) * share)] for share in (0.5, 0.99)]
    return f"p50 {at[0]:6.1f}  p99 {at[1]:6.1f}  most {values[-1]:6.1f}"


async def _phase(name: str, client: httpx.AsyncClient, *, logins_limit: int, seconds: float) -> None:
    over, took, seen = asyncio.Event(), list[float](), list[int]()
    await client.get("/probe/late")
    async with asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(_reads(client, over, took))
        for n in range(logins_limit):  # of one account few would wait, one after the other
            group.create_task(_log_ins(client, f"grace-{n}", over, seen))
        await asyncio.sleep(seconds)
        late = (await client.get("/probe/late")).json()
        over.set()
    print(
        f"{name:22} pages {_summary(took)} ms   loop late {_summary(late)} ms   {len(seen)} log-ins {set(seen) or ''}"
    )


async def _costs(client: httpx.AsyncClient) -> None:
    took: dict[str, list[float]] = {"believe": [], "doubt": []}
    for n in range(2 * ROUNDS):
        how = ("believe", "doubt")[n % 2]
        (await client.get(f"/probe/{how}")).raise_for_status()
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            assert (await client.get("/users")).status_code == 403  # verified, and nothing else done
            took[how].append(1_000_000 * (time.perf_counter() - begun))
    remembered, asked = (statistics.median(took[how]) for how in took)
    print(f"a request that is refused (p50): {remembered:.0f} us remembered, {asked:.0f} us asked of the database")


@contextlib.asynccontextmanager
async def _client(address: str, *, logins_limit: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        # Who reads, and who logs in: the most sessions would end the reader's own.
        for name in ("ada", *(f"grace-{n}" for n in range(logins_limit))):
            await client.post("/auth/register", json={"username": name, "password": PASSWORD})
        token = (await client.post("/auth/login", json={"username": "ada", "password": PASSWORD})).json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        for n in range(20):
            await client.post("/tasks", json={"title": f"task {n}"})
        yield client


async def measure(address: str, *, logins_limit: int, seconds: float) -> None:
    """Measure, and print."""
    async with _client(address, logins_limit=logins_limit) as client:
        await _phase("alone", client, logins_limit=0, seconds=seconds)
        await _phase(f"{logins_limit} log-ins in flight", client, logins_limit=logins_limit, seconds=seconds)
        await _phase("alone again", client, logins_limit=0, seconds=seconds)
        await _costs(client)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--log-ins", type=int, default=50)
    parser.add_argument("--serve", nargs=2, metavar=("URL", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
    else:
        with served() as address:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            asyncio.run(measure(address, logins_limit=arguments.logins_limit, seconds=arguments.seconds))
