"""The service returns 503 in time while its database is unavailable, silent or too slow, and recovers by itself."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from loguru import logger

from service.accounts.passwords import Passwords
from service.app import create_app
from service.core.settings import Settings
from service.db import embedded, migrations
from service.db import pool as db
from tests.conftest import make_settings
from tests.support.factories import PASSWORD, Factory, User
from tests.support.gates import gate

if TYPE_CHECKING:
    from loguru import Message, Record

WAIT_SECONDS = 20
ANSWER_SECONDS = (
    6  # what all of the service's timeouts, as short as they are here, come to, and some for a busy machine
)
# Every route that needs the database, in an order in which all of them work, and what they then answer.
ROUTES = [
    ("post", "/auth/register", 201),
    ("post", "/auth/login", 200),
    ("post", "/auth/refresh", 200),
    ("get", "/auth/me", 200),
    ("post", "/auth/ticket", 200),
    ("get", "/auth/sessions", 200),
    ("delete", "/auth/sessions/{session_id}", 204),
    ("post", "/auth/logout", 204),
    ("post", "/auth/keys", 201),
    ("get", "/auth/keys", 200),
    ("delete", "/auth/keys/{key_id}", 204),
    ("put", "/auth/password", 204),
    ("get", "/users", 200),
    ("get", "/users/{user_id}", 200),
    ("patch", "/users/{user_id}", 200),
    ("get", "/events", 200),
    ("post", "/tasks", 201),
    ("get", "/tasks", 200),
    ("get", "/tasks/export", 200),
    ("get", "/tasks/{task_id}", 200),
    ("get", "/tasks/{task_id}/history", 200),
    ("post", "/tasks/{task_id}/attachments", 201),
    ("get", "/tasks/{task_id}/attachments", 200),
    ("get", "/tasks/{task_id}/attachments/{attachment_id}", 200),
    ("delete", "/tasks/{task_id}/attachments/{attachment_id}", 204),
    ("post", "/tasks/bulk", 201),
    ("put", "/tasks/{task_id}", 200),
    ("patch", "/tasks/{task_id}", 200),
    ("delete", "/tasks/{task_id}", 204),
    ("post", "/tasks/{task_id}/restore", 200),
    ("get", "/analytics", 200),
    ("get", "/analytics/timeseries", 200),
    ("get", "/readyz", 200),
]


REPORTS = frozenset({"/analytics", "/analytics/timeseries", "/tasks/export"})  # they have connections of their own
ATTACHMENTS = "/tasks/{task_id}/attachments"
QUERIES = {"/analytics/timeseries": "?bucket=day", "/tasks/export": "?format=ndjson"}


@dataclass(frozen=True)
class Spare:
    """What a user may spend and end."""

    refresh_token: str = base64.urlsafe_b64encode(bytes(56)).decode()
    token: str = ""
    session_id: int = 1
    key_id: int = 1
    task_id: int = 1
    attachment_id: int = 1


NOTHING = Spare()


@pytest.fixture(autouse=True)
def log_records(caplog: pytest.LogCaptureFixture) -> Iterator[list[Record]]:
    """What the service logs; what is expected to fail leaves no trace in it, nor in asyncio's log."""
    records: list[Record] = []

    def keep(message: Message) -> None:
        records.append(message.record)

    sink = logger.add(keep)
    yield records
    logger.remove(sink)
    assert not [one for one in records if one["exception"] or one["level"].no >= 40]
    assert not [one for one in caplog.records if one.exc_info or one.levelno >= 40]


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(db, "ACQUIRE_SECONDS", 0.5)
    monkeypatch.setattr(db, "profiles", partial(_short_profiles, db.profiles))
    monkeypatch.setattr(db, "LOCK_SECONDS", 30)  # so that a test's lock holds as long as its statements may run


def _short_profiles(
    profiles: Callable[[Settings], dict[db.ProfileName, db.PoolProfile]], settings: Settings
) -> dict[db.ProfileName, db.PoolProfile]:
    """Return the profiles with a timeout of at most a second for reports and bulk writes."""
    return {
        name: profile if name == "requests" else replace(profile, statement_timeout_ms=1000)
        for name, profile in profiles(settings).items()
    }


@asynccontextmanager
async def started(
    url: str, *, milliseconds: int = 500, connections: int = 10, listen_url: str = "", **more: object
) -> AsyncIterator[FastAPI]:
    values = {"database_statement_timeout_ms": milliseconds, "database_pool_size": connections, **more}
    app = create_app(make_settings(url, database_listen_url=listen_url, **values), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def dba(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def slow_tasks(url: str) -> AsyncIterator[None]:
    """Let every statement on tasks wait, for as long as this lasts."""
    async with dba(url) as sql, sql.transaction():
        await sql.execute("lock table tasks")
        yield


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def running(sql: asyncpg.Connection[asyncpg.Record]) -> int:
    """How many statements of the service run, or wait."""
    found = await sql.fetchval(
        "select count(*) from pg_stat_activity "
        "where datname = current_database() and application_name = $1 and state <> 'idle'",
        db.APPLICATION_NAME,
    )
    return int(found)


async def waiting(sql: asyncpg.Connection[asyncpg.Record]) -> int:
    """How many statements of the service wait for a lock."""
    found = await sql.fetchval(
        "select count(*) from pg_stat_activity "
        "where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'",
        db.APPLICATION_NAME,
    )
    return int(found)


async def terminate(sql: asyncpg.Connection[asyncpg.Record]) -> int:
    """End the service's connections."""
    found = await sql.fetchval(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where datname = current_database() and application_name = $1",
        db.APPLICATION_NAME,
    )
    return int(found)


def body_of(user: User, method: str, path: str, spare: Spare) -> dict[str, Any] | None:
    """Return a body that would work."""
    bodies: dict[str, dict[str, Any]] = {
        "/auth/register": {"username": f"user-{uuid4().hex}", "password": PASSWORD},
        "/auth/login": {"username": user.username, "password": PASSWORD},
        "/auth/refresh": {"refresh_token": spare.refresh_token},
        "/auth/password": {"current_password": PASSWORD, "new_password": PASSWORD},
        "/auth/keys": {"name": "nightly"},
        "/users/{user_id}": {"role": "admin"},
        "/tasks": {"title": f"task {uuid4()}"},
        "/tasks/bulk": {"tasks": [{"title": f"task {uuid4()}"}]},
        "/tasks/{task_id}": {"title": f"task {uuid4()}"},
    }
    return bodies.get(path) if method in {"post", "put", "patch"} else None


async def ask(user: User, method: str, path: str, *, spare: Spare = NOTHING) -> httpx.Response:
    """Make a request that would work, and wait for its answer no longer than a client would."""
    headers = {"Authorization": f"Bearer {spare.token}"} if path == "/auth/logout" and spare.token else {}
    filled = path.format(user_id=user.id, **asdict(spare)) + QUERIES.get(path, "")
    begun = time.monotonic()
    async with asyncio.timeout(WAIT_SECONDS):
        files = {"file": b"x"} if (method, path) == ("post", ATTACHMENTS) else None
        body = body_of(user, method, path, spare)
        answer = await user.client.request(method, filled, json=body, files=files, headers=headers)
    assert time.monotonic() - begun < ANSWER_SECONDS
    return answer


async def spare_of(user: User, *, with_task: bool = True) -> Spare:
    logged_in = (await ask(user, "post", "/auth/login")).json()
    (session_id,) = [one["id"] for one in (await ask(user, "get", "/auth/sessions")).json()["items"]][:1]
    leaves = (await ask(user, "post", "/auth/login")).json()
    key_id = (await ask(user, "post", "/auth/keys")).json()["id"]
    task_id = (await ask(user, "post", "/tasks")).json()["id"] if with_task else 1
    refresh_token, token = logged_in["refresh_token"], leaves["access_token"]
    spare = Spare(refresh_token, token, session_id, key_id, task_id)
    attachment = (await ask(user, "post", ATTACHMENTS, spare=spare)).json() if with_task else {"id": 1}
    assert "id" in attachment, attachment
    return replace(spare, attachment_id=attachment["id"])


async def all_work(user: User) -> None:
    spare = await spare_of(user)
    assert [(await ask(user, *one, spare=spare)).status_code for *one, _ in ROUTES] == [one[-1] for one in ROUTES]


async def none_work(user: User, *, but: frozenset[str] = frozenset()) -> None:
    asked = [(method, path) for method, path, _ in ROUTES if path not in but]
    *answers, health = await asyncio.gather(*(ask(user, *one) for one in asked), user.client.get("/healthz"))
    assert health.status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1


def test_every_route_is_tried() -> None:
    app = create_app(make_settings("postgresql://localhost/tasks"))
    documented = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    without_it = {("get", "/"), ("get", "/healthz"), ("get", "/metrics"), ("get", "/ws")}
    assert documented == {(method, path) for method, path, _ in ROUTES} | without_it


@pytest.mark.parametrize("how", ["refused", "cut", "silent"])
async def test_every_route_returns_503_without_a_database_and_works_when_it_returns(
    own_database_url: str, how: str
) -> None:
    async with gate(own_database_url) as door, started(door.url) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        await all_work(user)
        await door.shut(how)
        await none_work(user)
        await none_work(user)
        await door.open()
        await until(lambda: ready(user.client))
        await all_work(user)


async def test_a_start_without_a_database_ends_well_when_there_is_one(own_database_url: str) -> None:
    async with gate(own_database_url) as door, dba(own_database_url) as sql:
        await door.shut("refused")
        async with started(door.url) as app:
            user = await Factory(sql, app).admin()
            await none_work(user)
            await door.open()
            await until(lambda: ready(user.client))
            await all_work(user)


async def test_a_stopped_and_a_crashed_server_are_waited_for() -> None:
    # Not tmp_path: PostgreSQL, which does not run as root, may not reach what is in there.
    with tempfile.TemporaryDirectory() as path:
        folder, options = Path(path, "postgres"), {"fsync": "off", "shared_buffers": "16MB"}
        with embedded.running(folder, options=options) as url:
            migrations.migrate(url)
            async with started(url) as app:
                async with dba(url) as sql:
                    user = await Factory(sql, app).admin()
                for how in (signal.SIGINT, signal.SIGQUIT):  # PostgreSQL's fast stop, and its stop without a farewell
                    await all_work(user)
                    postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
                    os.kill(postmaster.pid, how)
                    await until(lambda: gone(postmaster))  # noqa: B023
                    await none_work(user)
                    with embedded.running(folder, options=options):
                        await until(lambda: ready(user.client))
                await all_work(user)


async def gone(process: psutil.Process) -> bool:
    return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)


async def test_requests_whose_connections_are_ended_get_503_and_the_next_ones_work(own_database_url: str) -> None:
    async with started(own_database_url, milliseconds=10_000) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        async with slow_tasks(own_database_url), asyncio.TaskGroup() as group:
            requests = [group.create_task(ask(user, "post", "/tasks")) for _ in range(5)]
            await until(lambda: equals(waiting(sql), 5))
            assert await terminate(sql) >= 5
        assert [request.result().status_code for request in requests] == [503] * 5
        await all_work(user)


async def equals(found: Awaitable[int] | int, expected: int) -> bool:
    return (found if isinstance(found, int) else await found) == expected


async def test_connections_ended_under_load_never_cause_500(own_database_url: str) -> None:
    over = asyncio.Event()

    async def write(user: User) -> list[int]:
        seen = []
        while not over.is_set():
            seen.append((await ask(user, "post", "/tasks")).status_code)
        return seen

    async with started(own_database_url, connections=4) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(user)) for _ in range(6)]
            for _ in range(10):
                await until(lambda: terminate(sql))
            over.set()
        seen = [status for writer in writers for status in writer.result()]
        assert set(seen) <= {201, 503}
        assert await sql.fetchval("select count(*) from tasks") >= seen.count(201) > 0
        await all_work(user)


async def test_the_database_ends_a_statement_that_takes_too_long(
    own_database_url: str, log_records: list[Record]
) -> None:
    async with started(own_database_url) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        spare = await spare_of(user, with_task=False)
        async with slow_tasks(own_database_url):
            for method, path, status in ROUTES:
                needs_tasks = path.startswith(("/tasks", "/analytics"))
                assert (await ask(user, method, path, spare=spare)).status_code == (503 if needs_tasks else status)
            assert await running(sql) == 0
        causes = [one["extra"]["cause"] for one in log_records if "unavailable" in one["message"]]
        assert causes
        assert all(cause.startswith("QueryCanceledError") for cause in causes)
        await all_work(user)


async def test_a_request_that_finds_no_free_connection_gets_503_and_the_others_their_answers(
    own_database_url: str,
) -> None:
    async with started(own_database_url, milliseconds=30_000, connections=2) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        async with asyncio.TaskGroup() as group, slow_tasks(own_database_url):
            slow = [group.create_task(ask(user, "get", "/tasks")) for _ in range(2)]
            await until(lambda: equals(waiting(sql), 2))
            await none_work(user, but=REPORTS)
            assert await running(sql) == 2
        assert [request.result().status_code for request in slow] == [200, 200]


async def test_a_client_that_disconnects_releases_its_connection_and_cancels_its_statement(
    own_database_url: str,
) -> None:
    async with started(own_database_url, milliseconds=30_000, connections=1) as app, dba(own_database_url) as sql:
        user = await Factory(sql, app).admin()
        async with slow_tasks(own_database_url):
            served = asyncio.create_task(ask(user, "post", "/tasks"))
            await until(lambda: equals(waiting(sql), 1))
            queued = asyncio.create_task(ask(user, "post", "/tasks"))
            await asyncio.sleep(0)
            for request in (served, queued):
                request.cancel()
            await asyncio.wait((served, queued))
            assert [request.result().status_code for request in (served, queued)] == [503, 503]
            await until(lambda: equals(running(sql), 0))
        pool = app.state.services.db.pool
        await until(lambda: equals(pool.free_connections, 1))
        await all_work(user)


async def test_a_client_that_disconnects_while_the_service_connects_frees_its_pool_slot(own_database_url: str) -> None:
    async with (
        gate(own_database_url) as door,
        started(door.url, connections=1, listen_url=own_database_url) as app,
        dba(own_database_url) as sql,
    ):
        user = await Factory(sql, app).admin()
        await door.shut("cut")
        pool = app.state.services.db.pool
        await until(lambda: equals(pool.open_connections, 0))
        await door.shut("silent")
        for held in (1, 2, 3):
            request = asyncio.create_task(ask(user, "get", "/auth/me"))
            await until(lambda: equals(door.held, held))  # noqa: B023
            request.cancel()
            await asyncio.wait([request])
        await door.open()
        await until(lambda: ready(user.client))
        await all_work(user)
