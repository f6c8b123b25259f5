"""Measures what the largest bodies cost others: `python -m tests.benchmarks.bodies [--rounds N]`.

Starts the service in a process of its own, sends 16 MB to `POST /tasks/bulk` in every shape that is slow to read, and
asks `/healthz` again and again meanwhile: prints how long the slowest of those took, which is how long the event loop
stood still, and what the body was answered.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from service.api.pipeline.body_limits import MAX_BODY_BYTES, MAX_LARGE_BODY_BYTES
from service.api.pipeline.json_limits import MAX_VALUES
from service.db import embedded, migrations
from tests.support.servers import Server, serving

WAIT_SECONDS = 300
MAX_BULK_BYTES = MAX_LARGE_BODY_BYTES["POST", "/tasks/bulk"]
PASSWORD = "correct horse battery staple"


def repeated(head: str, part: str, tail: str, *, number: int = MAX_BULK_BYTES, size: int = MAX_BULK_BYTES) -> bytes:
    """Return a body with the part so often, or as often as it fits, separated by commas."""
    number = min(number, (size - len((head + tail).encode())) // (len(part.encode()) + 1))
    return (head + ",".join([part] * number) + tail).encode()


def fields(number: int) -> bytes:
    """Return an object with so many fields."""
    return ("{" + ",".join(f'"{n:x}":0' for n in range(number)) + "}").encode()


def tasks(description: str) -> bytes:
    """Return a thousand tasks with this description."""
    body = json.dumps({"tasks": [{"title": "x" * 100, "description": description}] * 1000}, ensure_ascii=False)
    return body.encode()


BODIES: dict[str, Callable[[], bytes]] = {
    "a thousand tasks of 10,000 letters": lambda: tasks("x" * 10_000),
    "a thousand tasks of escapes": lambda: tasks("\\u00e9" * 2_600).replace(b"\\\\u", b"\\u"),
    "a thousand tasks of quotes": lambda: tasks('"' * 7_800),
    "a thousand tasks of foxes": lambda: tasks("🦊" * 3_900),
    "the same with an Idempotency-Key": lambda: tasks("🦊" * 3_900),
    "the same again": lambda: tasks("🦊" * 3_900),
    "a thousand tasks, descriptions too long": lambda: tasks("x" * 15_800),
    "empty objects": lambda: repeated('{"tasks": [', "{}", "]}"),
    "empty lists": lambda: repeated('{"tasks": [', "[]", "]}"),
    "whole tasks": lambda: repeated('{"tasks": [', '{"title":"x"}', "]}"),
    "numbers": lambda: repeated('{"tasks": [', "1", "]}"),
    "texts": lambda: repeated('{"tasks": [', '""', "]}"),
    "one task, many fields": lambda: b'{"tasks": [%b]}' % fields(1_400_000),
    "many fields": lambda: fields(1_400_000),
    "one task with a deep description": lambda: repeated('{"tasks": [{"title": "x", "description": [', "[[]]", "]}]}"),
    "one long number": lambda: b'{"tasks": [' + b"1" * (MAX_BULK_BYTES - 13) + b"]}",
    "a thousand empty objects": lambda: repeated('{"tasks": [', "{}", "]}", number=1000),
    "nearly too many empty objects": lambda: repeated('{"tasks": [', "{}", "]}", number=MAX_VALUES // 2 - 10),
    "nearly too many fields": lambda: fields(MAX_VALUES // 2 - 10),
    "brackets": lambda: b"[" * MAX_BULK_BYTES,
    "braces": lambda: b'{"a":' * (MAX_BULK_BYTES // 5),
    "spaces": lambda: b'{"tasks": [{"title": "x"}]}'.ljust(MAX_BULK_BYTES),
    "no JSON at its end": lambda: repeated('{"tasks": [', "{}", ""),
    "one task's title of empty lists": lambda: repeated('{"title": [', "[]", "]}", size=MAX_BODY_BYTES),
    "one task's title of numbers": lambda: repeated('{"title": [', "1", "]}", size=MAX_BODY_BYTES),
    "bytes that are no text": lambda: b"\xff" * MAX_BULK_BYTES,
}


KEYS = {key: {"Idempotency-Key": "k"} for key in ("the same with an Idempotency-Key", "the same again")}


def register(server: Server) -> str:
    """Return the token of a new user."""
    account = {"username": f"bodies-{time.time_ns() % 10**12}", "password": PASSWORD}
    with server.client() as client:
        client.post("/auth/register", json=account).raise_for_status()
        return str(client.post("/auth/login", json=account).raise_for_status().json()["access_token"])


def slowest(server: Server, work: Callable[[], None]) -> float:
    """Run the work and return the duration of the slowest health check meanwhile, in milliseconds."""
    times, ready, over = list[float](), threading.Event(), threading.Event()

    def poll_health() -> None:
        with server.client() as client:
            while not over.is_set():
                begun = time.perf_counter()
                client.get("/healthz", timeout=WAIT_SECONDS).raise_for_status()
                if ready.is_set():
                    times.append((time.perf_counter() - begun) * 1000)
                ready.set()

    looking = threading.Thread(target=poll_health)
    looking.start()
    ready.wait()
    work()
    over.set()
    looking.join()
    return max(times)


def send(client: httpx.Client, request: httpx.Request, answers: list[httpx.Response]) -> None:
    """Send a request and keep its answer."""
    answers.append(client.send(request))


def measure(server: Server, *, rounds: int) -> None:
    """Measure, and print."""
    with server.client(register(server)) as client:
        client.timeout = WAIT_SECONDS
        for name, make in BODIES.items():
            body, answers = make(), list[httpx.Response]()
            # Set up beforehand: what this process does meanwhile would be seen as the service's.
            requests = [
                client.build_request(
                    "POST",
                    "/tasks" if len(body) <= MAX_BODY_BYTES and "title" in name else "/tasks/bulk",
                    content=body,
                    headers={"Content-Type": "application/json"} | KEYS.get(name, {}),
                )
                for _ in range(rounds)
            ]
            begun = time.perf_counter()
            found = [slowest(server, partial(send, client, one, answers)) for one in requests]
            seconds = (time.perf_counter() - begun) / rounds
            print(
                f"{name:42} {len(body) / 1e6:5.1f} MB  {max(found):8.1f} ms at most"
                f"  {seconds:6.2f} s  {answers[-1].status_code}",
                flush=True,
            )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg")) as url:
        migrations.migrate(url)
        with serving(Path(folder), DATABASE_URL=url, RATE_LIMIT_PER_MINUTE="0") as server:
            print(f"nothing: {slowest(server, lambda: time.sleep(3)):.1f} ms at most")
            measure(server, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
