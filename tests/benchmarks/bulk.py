"""Measures creations: `python -m tests.benchmarks.bulk [--tasks N]`.

Prints how many tasks a second come in one by one (a client that waits for each, and eight at once) and a thousand at a
time, through the API of a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from service.db import embedded, migrations
from tests.benchmarks.events import ADMIN, is_ready, running
from tests.support.servers import until

AT_ONCE, IN_BULK = 8, 1000
TASK = {"title": "Prepare Report", "description": "Collect monthly data", "status": "todo"}


def rate(number: int, work: Callable[[], object]) -> float:
    """Return how many a second there are of so many, which the work makes."""
    begun = time.perf_counter()
    work()
    return number / (time.perf_counter() - begun)


def created(answer: httpx.Response) -> Any:
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return answer.json()


def measure(client: httpx.Client, *, tasks: int) -> None:
    """Measure and print; each way once before it counts."""

    def one(_: object = None) -> None:
        created(client.post("/tasks", json=TASK))

    def some() -> None:
        for _ in range(tasks):
            one()

    def some_at_once() -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(one, range(tasks)))

    def many(times: int = 10) -> None:
        for _ in range(times):
            assert len(created(client.post("/tasks/bulk", json={"tasks": [TASK] * IN_BULK}))["items"]) == IN_BULK

    one()
    many(1)
    alone = rate(tasks, some)
    together = rate(tasks, some_at_once)
    bulk = rate(10 * IN_BULK, many)
    print(f"one after the other {alone:8.0f} tasks/s")
    print(f"{AT_ONCE} at once           {together:8.0f} tasks/s")
    print(f"{IN_BULK} in one request {bulk:8.0f} tasks/s: {bulk / alone:.1f} and {bulk / together:.1f} times as many")


def main() -> None:
    """Start a database and the service, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg")) as url:
        migrations.migrate(url)
        with running("service", url) as service, httpx.Client(base_url=service.url, timeout=60) as client:
            until(lambda: is_ready(client))
            token = client.post("/auth/login", json=ADMIN).json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            measure(client, tasks=arguments.tasks)


if __name__ == "__main__":
    main()
