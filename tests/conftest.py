"""Where the tests' PostgreSQL comes from, a database of its own for each worker, and what tests ask for.

`TEST_DATABASE_URL` where it is set, else a container where a Docker engine answers, else the embedded one. The server
is started once, by the process that the others are started from; a template database is migrated once and cloned.
"""

from __future__ import annotations

import ast
import atexit
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import hypothesis
import pytest
from fastapi import FastAPI
from loguru import logger

from service.accounts.passwords import Passwords
from service.app import create_app
from service.core.logs import _Intercept
from service.core.settings import Settings
from service.db import embedded, migrations, pool
from service.db.pool import Database
from service.db.statements import FOLDER, Statement, read_all
from service.dba.stub import STUB, class_name
from tests.support.factories import Factory
from tests.support.redis_server import RedisServer

pytest_plugins = ["tests.support.attachments", "tests.support.weather"]
SECRET_KEY = "tests-" + "k" * 32
FILES = tempfile.mkdtemp(prefix="attachments-")
atexit.register(shutil.rmtree, FILES, ignore_errors=True)
SERVER, TEMPLATE, KIND = "TASKS_TEST_SERVER", "TASKS_TEST_TEMPLATE", "TASKS_TEST_KIND"
# As whom the service connects: `TEST_DATABASE_ROLE=tasks_app` is the role that sql/dba/roles.sql makes for it.
PRELOADED = "shared_preload_libraries=pg_stat_statements"  # where the server has it
ROLE = os.environ.get("TEST_DATABASE_ROLE", "")
# Without the triggers that keep the last administrator, and record events.
EMPTY = """
set session_replication_role = replica;
delete from attachments; delete from removed_attachments; update attachment_store set sweep_due_at = 'infinity';
delete from task_search; delete from tasks;
delete from sessions; delete from api_keys; delete from tickets; delete from idempotency_keys;
delete from users;
delete from task_events; update task_event_horizon set expired_id = 0 where expired_id > 0;
reset session_replication_role
"""
_TYPES = {
    node.name: {
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and "None" not in ast.unparse(line.annotation)
    }
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
}
NEVER_NULL = {one.name: _TYPES.get(f"{class_name(one)}Row", set()) for one in read_all()}
SLOW_FOLDERS = {"faults", "processes"}
_opened = pytest.StashKey[ExitStack]()

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
for name in Settings.model_fields:
    os.environ.pop(name.upper(), None)  # a developer's shell does not reach into the tests


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, in the first process alone."""
    if SERVER in os.environ or config.option.collectonly:
        return
    with ExitStack() as stack:
        kind, url = stack.enter_context(_server())
        template = f"template_{uuid4().hex}"
        _execute(url, f"create database {template}")
        stack.callback(_execute, url, f"drop database {template} with (force)")
        migrations.migrate(_at(url, template))
        if ROLE:
            _execute(_at(url, template), (FOLDER / "dba" / "roles.sql").read_text(encoding="utf-8"))
            _execute(url, f"alter role {ROLE} password '{ROLE}'")
        os.environ |= {SERVER: url, TEMPLATE: template, KIND: kind}
        config.stash[_opened] = stack.pop_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest folders first, so that two workers end at the same time."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in SLOW_FOLDERS)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    if stack := config.stash.get(_opened, None):
        stack.close()
        for name in (SERVER, TEMPLATE, KIND):
            os.environ.pop(name)


def pytest_report_header() -> str:
    """Say which PostgreSQL it is."""
    return f"PostgreSQL: {os.environ.get(KIND, 'not started')}{f', the service as {ROLE}' if ROLE else ''}"


@contextmanager
def _server() -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        if url := os.environ.get("TEST_DATABASE_URL"):
            kind = "TEST_DATABASE_URL"
        elif not _docker_answers():
            kind, url = "embedded", stack.enter_context(_embedded())
        else:
            try:
                kind, url = "testcontainers, postgres:18", stack.enter_context(_container())
            except Exception as error:  # an engine that answers and has no image, say
                kind, url = f"embedded (no container: {error!r:.200})", stack.enter_context(_embedded())
        yield kind, url


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:18", driver=None).with_command(
        f"postgres -c fsync=off -c {PRELOADED}"
    ) as container:
        yield container.get_connection_url()


@contextmanager
def _embedded() -> Iterator[str]:
    options = {"fsync": "off", "synchronous_commit": "off", "max_connections": "200"}
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg"), options=options) as url:
        yield url


def _docker_answers() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _at(url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def as_service(url: str) -> str:
    """Return the URL of a test database for the role of the service; the URL itself is that of the owner."""
    if not ROLE or "/test_" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{ROLE}:{ROLE}@{parts.netloc.rpartition('@')[2]}"))


def _execute(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def _database(template: str) -> Iterator[str]:
    server, name = os.environ[SERVER], f"{'empty' if template == 'template0' else 'test'}_{uuid4().hex}"
    _execute(server, f"create database {name} template {template}")
    try:
        yield _at(server, name)
    finally:
        _execute(server, f"drop database {name} with (force)")


@pytest.fixture(autouse=True)
def _held_to_its_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the rows of every statement with the stub: no column that it declares as not null is NULL."""
    call = Statement.__call__

    async def calling(self: Statement, db: Any, **values: Any) -> Any:
        result, returns = await call(self, db, **values), self.header.returns
        rows = result if returns == "rows" else [result] if returns in {"row", "row?"} and result else []
        for row in rows:
            wrong = [name for name, value in row.items() if value is None and name in NEVER_NULL.get(self.name, ())]
            assert not wrong, f"{self.path}:1: {wrong} may be null: say so in `nullable`"
        return result

    monkeypatch.setattr(Statement, "__call__", calling)


@pytest.fixture
def empty_database_url() -> Iterator[str]:
    """A database of the test's own, with nothing in it."""
    with _database("template0") as url:
        yield url


@pytest.fixture
def own_database_url() -> Iterator[str]:
    """A migrated database of the test's own, for what would disturb others: DDL, outages."""
    with _database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url() -> Iterator[str]:
    """A migrated database of the file's own."""
    with _database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """The migrated database of this worker; `sql` and `client` leave it empty."""
    with _database(os.environ[TEMPLATE]) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis for this worker: a container where a Docker engine answers, else a server of its own."""
    with ExitStack() as stack:
        if os.environ[KIND].startswith("testcontainers"):
            from testcontainers.community.redis import RedisContainer

            container = stack.enter_context(RedisContainer("redis:8"))
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
        else:
            yield stack.enter_context(RedisServer()).url


@pytest.fixture(scope="session")
def settings(database_url: str) -> Settings:
    """Settings of the application under test."""
    return make_settings(database_url, sql_admin=True)


def make_settings(database_url: str, **values: object) -> Settings:
    """Return settings independent of the environment, without limits unless the test sets them."""
    unlimited = {"rate_limit_per_minute": 0, "login_limit_per_minute": 0, "max_subscriptions_per_user": 1_000_000}
    own = {
        "database_url": as_service(database_url),
        "secret_key": SECRET_KEY,
        "log_file": "",
        "attachments_url": f"file://{FILES}",
    }
    merged = {**own, **unlimited, **values}
    return Settings(_env_file=None, **merged)  # type: ignore[arg-type, call-arg]


@pytest.fixture(scope="session")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, started; its passwords are hashed at bcrypt's lowest cost."""
    app = create_app(settings, passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
async def database(database_url: str, settings: Settings) -> AsyncIterator[Database]:
    """The pool, for statements that are tested without HTTP."""
    async with pool.connected(as_service(database_url), settings) as database:
        yield database


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session of its own as a DBA's psql has one; the tables are empty before and after."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(EMPTY)
    yield connection
    await connection.execute(EMPTY)
    await connection.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without a token."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def make(sql: asyncpg.Connection[asyncpg.Record], app: FastAPI) -> Factory:
    """Makes accounts, their clients, and tasks."""
    return Factory(sql, app)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the service, and the server below it, log from INFO on."""
    lines: list[str] = []
    server, handler = logging.getLogger("uvicorn.error"), _Intercept()
    server.addHandler(handler)
    sink = logger.add(lines.append, level="INFO", format="{level} {message} {extra}")
    yield lines
    logger.remove(sink)
    server.removeHandler(handler)
