"""What the parts of a request cost: CPU of blocks without a part, beside blocks with it, alternately, in process.

A part is left out by replacing one attribute; what it promises is then missing, so this is for measuring alone. Parts
overlap: their shares do not add up. A part that this version of the code does not have is named and left out.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import httpx
import uvloop
from fastapi import FastAPI

from service.api.authentication import IDENTITY
from service.api.headers import headers_of
from tests.benchmarks.database import Cluster
from tests.benchmarks.in_process import Request, cpu_seconds, service_running
from tests.benchmarks.load import NEW_TASK
from tests.benchmarks.servers import PASSWORD, USERNAMES, Accounts, prepare_accounts

ROUNDS, REQUESTS = 5, 96

Replace = Callable[[Any], Any]


def remembered(original: Any) -> Any:
    """Return a method that runs once for each object and returns that result from then on."""
    results: dict[int, Any] = {}

    def call(self: Any, *arguments: Any) -> Any:
        if id(self) not in results:
            results[id(self)] = original(self, *arguments)
        return results[id(self)]

    return call


def awaited_once(original: Any) -> Any:
    """Return a coroutine method that runs once for each object and returns that result from then on."""
    results: dict[int, Any] = {}

    async def call(self: Any, *arguments: Any) -> Any:
        if id(self) not in results:
            results[id(self)] = await original(self, *arguments)
        return results[id(self)]

    return call


def identified_once(original: Any) -> Any:
    """Return `check_rate_limit` as a function that authenticates the first request of each token alone."""
    identities: dict[bytes, Any] = {}

    async def call(request: Any) -> None:
        token = headers_of(request.scope)[b"authorization"]
        if token not in identities:
            await original(request)
            identities[token] = request.scope[IDENTITY]
        request.scope[IDENTITY] = identities[token]

    return call


def unbounded(_original: Any) -> Any:
    """Return `BodyLimits.bound` without any bound."""
    return lambda _self, _scope, receive: (receive, None)


def without_headers(_original: Any) -> Any:
    """Return `ResponseSender._start` that adds no header."""

    def start(self: Any, status: int, _headers: Any) -> None:
        self.started, self._status = True, status

    return start


def nothing(_original: Any) -> Any:
    """Return a function without effect."""
    return lambda *_arguments, **_options: None


PIPELINE = "service.api.pipeline"
PARTS: dict[str, list[tuple[str, str, Replace]]] = {
    "nothing left out (the noise)": [],
    "rate limit": [("service.ratelimit.limiter", "RateLimiter.check", awaited_once)],
    "rate limit and authentication": [(f"{PIPELINE}.request_pipeline", "check_rate_limit", identified_once)],
    "bounds of the body": [(f"{PIPELINE}.body_limits", "BodyLimits.bound", unbounded)],
    "arguments of the handler": [("service.api.endpoint", "Call.arguments", remembered)],
    "statement, pool and driver": [("service.db.statements", "Statement._run", awaited_once)],
    "headers of the response": [(f"{PIPELINE}.response_sender", "ResponseSender._start", without_headers)],
    "metrics of the request": [(f"{PIPELINE}.response_sender", "ResponseSender.record", nothing)],
    "log lines": [("loguru._logger", "Logger._log", nothing)],
}


def target(module: str, path: str) -> tuple[Any, str] | None:
    """Return the object that has an attribute and the attribute's name, or None if there is none."""
    try:
        holder: Any = import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        return (holder, name) if hasattr(holder, name) else None
    except (ImportError, AttributeError):
        return None


class Part:
    """A part of a request's way that can be left out."""

    def __init__(self, title: str) -> None:
        self.title = title
        found = [(target(module, path), replace) for module, path, replace in PARTS[title]]
        self.is_present = all(place for place, _ in found)
        self._changes = [
            (*place, getattr(*place), replace(getattr(*place))) for place, replace in found if place is not None
        ]

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leave the part out for a while."""
        for holder, name, _, replacement in self._changes:
            setattr(holder, name, replacement)
        try:
            yield
        finally:
            for holder, name, original, _ in self._changes:
                setattr(holder, name, original)


async def measure(app: FastAPI, request: Request, parts: list[Part]) -> list[str]:
    """Return the table of what each part saves of one kind of request."""
    await cpu_seconds(app, request, number=REQUESTS)
    saved: dict[str, list[float]] = {part.title: [] for part in parts}
    whole = []
    for _ in range(ROUNDS):
        for part in parts:
            before = await cpu_seconds(app, request, number=REQUESTS)
            with part.left_out():
                without = await cpu_seconds(app, request, number=REQUESTS)
            both = (before + await cpu_seconds(app, request, number=REQUESTS)) / 2
            whole.append(both)
            saved[part.title].append(1 - without / both)
    microseconds = statistics.median(whole) * 1e6
    lines = [f"{request.method} {request.path}: {microseconds:.0f} µs of CPU", ""]
    lines += ["| without | saved | of all |", "|---|---|---|"]
    for title, shares in sorted(saved.items(), key=lambda item: -statistics.median(item[1])):
        share = statistics.median(shares)
        lines.append(f"| {title} | {share * microseconds:.0f} µs | {share:.1%} |")
    return [*lines, ""]


async def _measure_all(database_url: str, redis_url: str, accounts: Accounts) -> list[str]:
    async with service_running(database_url, redis_url) as app:
        tokens = {account: await _log_in(app, account) for account in ("reader", "author")}
        task = f"/tasks/{accounts.task_ids[0]}"
        requests = [
            Request("GET", task, tokens["reader"]),
            Request("GET", "/tasks", tokens["reader"], query=b"status=todo&limit=20"),
            Request("POST", "/tasks", tokens["author"], body=json.dumps(NEW_TASK).encode()),
            Request("PATCH", task, tokens["reader"], body=b'{"title":"A changed title"}'),
        ]
        parts = [Part(title) for title in PARTS]
        lines = [f"not in this version: {part.title}" for part in parts if not part.is_present]
        for request in requests:
            lines += await measure(app, request, [part for part in parts if part.is_present])
    return lines


async def _log_in(app: Callable[[Any, Any, Any], Awaitable[None]], account: str) -> str:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        body = {"username": USERNAMES[account], "password": PASSWORD}
        return str((await client.post("/auth/login", json=body)).json()["access_token"])


def profile(cluster: Cluster, redis_url: str) -> None:
    """Print the tables, after the lines that the service logs meanwhile."""
    accounts = prepare_accounts(cluster.service_url)
    print("\n".join(uvloop.run(_measure_all(cluster.service_url, redis_url, accounts))))
