"""What a real server's errors become: each is caused here, and none is made up."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from service.core import errors, metrics
from service.db import embedded
from service.db import pool as db
from service.db.pool import Database
from service.db.queries import q
from service.db.statements import Statement, read
from tests.conftest import make_settings
from tests.support.factories import Factory

WAITS = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def statement(folder: Path, text: str, *, returns: str = "value") -> Statement:
    path = folder / "any.sql"
    path.write_text(f"-- A sentence.\n-- returns: {returns}\n{text};", encoding="utf-8")
    return read(path, folder=folder)


@asynccontextmanager
async def pool(url: str, **values: Any) -> AsyncIterator[Database]:
    async with db.connected(url, make_settings(url, **values)) as database:
        yield database


async def answers(database: Database) -> bool:
    """Return whether the database answers; the only accepted error is that it is unavailable."""
    try:
        return isinstance(await q.accounts.has_admin(database), bool)
    except errors.UnavailableError:
        return False


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            pass


def at(url: str, **parts: str) -> str:
    return urlunsplit(urlsplit(url)._replace(**parts))


async def test_a_taken_name_is_a_conflict(database: Database, make: Factory) -> None:
    ada = await make.user()
    with pytest.raises(errors.ConflictError, match="taken"):
        await q.accounts.create(database, username=ada.username.upper(), password_hash="", role="user")


async def test_a_vanished_owner_is_unauthorized(database: Database, make: Factory) -> None:
    with pytest.raises(errors.UnauthorizedError):
        await q.tasks.create(database, user_id=0, title="x", description=None, status="todo", city=None, weather=None)


async def test_a_failed_check_is_invalid_and_points_at_the_field(database: Database, make: Factory) -> None:
    ada = await make.user()
    with pytest.raises(errors.InvalidError) as failure:
        await q.tasks.create(
            database, user_id=ada.id, title=" ", description=None, status="todo", city=None, weather=None
        )
    assert failure.value.pointer == "/title"


@pytest.mark.parametrize("number", [2**63, "text"])
async def test_a_number_that_cannot_be_sent_is_invalid(database: Database, number: Any) -> None:
    with pytest.raises(errors.InvalidError):
        await q.accounts.get(database, user_id=number)


@pytest.mark.parametrize("text", ["\0", "\ud800"])
async def test_a_text_that_cannot_be_sent_is_invalid(database: Database, text: str) -> None:
    with pytest.raises(errors.InvalidError):
        await q.accounts.credentials(database, username=text)


@pytest.mark.parametrize(
    "text", ["select 1 / 0", "select 'x'::text::bigint", "select '99999-01-01'::timestamptz + '999999y'"]
)
async def test_a_value_that_the_server_cannot_take_is_invalid(database: Database, tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.InvalidError):
        await statement(tmp_path, text)(database)


async def test_a_statement_that_takes_too_long_is_unavailable_and_ended_by_the_server(
    database_url: str, tmp_path: Path
) -> None:
    async with pool(database_url, database_statement_timeout_ms=50) as database:
        with pytest.raises(errors.UnavailableError) as failure:
            await statement(tmp_path, "select pg_sleep(30)::text")(database)
        assert isinstance(failure.value.__cause__, asyncpg.QueryCanceledError)
        assert await answers(database)


async def test_one_of_two_deadlocked_transactions_is_unavailable(database: Database, make: Factory) -> None:
    ada = await make.user()
    one, two = await make.task(ada), await make.task(ada)
    change: dict[str, Any] = {"viewer_id": ada.id, "viewer_is_admin": False, "expected_versions": None}
    locked = asyncio.Barrier(2)

    async def change_both(first: int, second: int) -> None:
        async with database.connection() as connection, connection.transaction():
            await q.tasks.delete(connection, task_id=first, **change)
            await locked.wait()
            await q.tasks.delete(connection, task_id=second, **change)

    results = await asyncio.gather(change_both(one, two), change_both(two, one), return_exceptions=True)
    (failure,) = [result for result in results if result is not None]
    assert isinstance(failure, errors.UnavailableError)
    assert isinstance(failure.__cause__, asyncpg.DeadlockDetectedError)


async def test_a_deadlocked_statement_is_run_again(database: Database, make: Factory, sql: Any, tmp_path: Path) -> None:
    ada = await make.user()
    ids = sorted([await make.task(ada), await make.task(ada)])
    change = statement(
        tmp_path,
        "with t as (select id from tasks order by id for update) update tasks set title = title || '!' from t"
        " where tasks.id = t.id returning pg_sleep(0)::text",
    )
    await sql.execute("set deadlock_timeout = '30s'")
    async with sql.transaction():
        await sql.execute("update tasks set title = 'By hand' where id = $1", ids[1])
        changing = asyncio.create_task(change(database))
        async with asyncio.timeout(10):
            while not await sql.fetchval(WAITS):
                await asyncio.sleep(0.01)
                await sql.execute("select pg_stat_clear_snapshot()")  # else one transaction reads one state
        await sql.execute("update tasks set title = 'By hand' where id = $1", ids[0])
    await changing
    assert metrics.STATEMENT_ERRORS.labels("any", "rolled_back")._value.get() == 1
    assert [row["title"] for row in await sql.fetch("select title from tasks")] == ["By hand!"] * 2


async def test_a_failed_serialization_is_unavailable(database: Database, make: Factory, sql: Any) -> None:
    ada = await make.user()
    task = await make.task(ada)
    delete: dict[str, Any] = {"task_id": task, "viewer_id": ada.id, "viewer_is_admin": False, "expected_versions": None}
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read"):
        await q.accounts.has_admin(connection)
        await sql.execute("update tasks set title = 'changed meanwhile'")
        with pytest.raises(errors.UnavailableError) as failure:
            await q.tasks.delete(connection, **delete)
    assert isinstance(failure.value.__cause__, asyncpg.SerializationError)


async def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with pool(f"postgresql://ada:secret@127.0.0.1:{port}/tasks") as database:
        with pytest.raises(errors.UnavailableError) as failure:
            await q.accounts.has_admin(database)
    assert "secret" not in failure.value.detail
    assert isinstance(failure.value.__cause__, OSError)


async def test_a_host_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "CONNECT_SECONDS", 0.05)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        async with pool(f"postgresql://ada@127.0.0.1:{deaf.getsockname()[1]}/tasks") as database:
            with pytest.raises(errors.UnavailableError) as failure:
                await q.accounts.has_admin(database)
    assert isinstance(failure.value.__cause__, TimeoutError)


async def test_an_unknown_database_is_unavailable(database_url: str) -> None:
    async with pool(at(database_url, path="/nowhere")) as database:
        with pytest.raises(errors.UnavailableError) as failure:
            await q.accounts.has_admin(database)
    assert isinstance(failure.value.__cause__, asyncpg.InvalidCatalogNameError)


async def test_a_wrong_password_is_unavailable() -> None:
    """On a cluster of its own, for the tests' may ask for none."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        rules = Path(parent, "hba")
        rules.write_text("local all ada scram-sha-256\nlocal all all trust\n")
        rules.chmod(0o644)
        with embedded.running(Path(parent, "pg"), options={"fsync": "off", "hba_file": str(rules)}) as url:
            connection = await asyncpg.connect(url)
            await connection.execute("create role ada login password 'right'")
            await connection.close()
            login = url.replace("postgres@", "ada:wrong@")
            async with pool(login) as database:
                with pytest.raises(errors.UnavailableError) as failure:
                    await database_version(database, Path(parent))
            assert isinstance(failure.value.__cause__, asyncpg.InvalidPasswordError)
            async with pool(login.replace("wrong", "right")) as database:
                assert await database_version(database, Path(parent))


async def database_version(database: Database, folder: Path) -> object:
    return await statement(folder, "select version()")(database)


async def test_a_role_that_may_not_log_in_is_unavailable(database_url: str, sql: Any) -> None:
    role = f"role_{uuid4().hex}"
    await sql.execute(f"create role {role} nologin")
    server = urlsplit(database_url)
    try:
        async with pool(at(database_url, netloc=f"{role}@{server.netloc.rpartition('@')[2]}")) as database:
            with pytest.raises(errors.UnavailableError) as failure:
                await q.accounts.has_admin(database)
        assert isinstance(failure.value.__cause__, asyncpg.InvalidAuthorizationSpecificationError)
    finally:
        await sql.execute(f"drop role {role}")


@pytest.mark.parametrize("text", ["table missing", "select missing from users", "select missing()"])
async def test_an_outdated_schema_is_unavailable_and_named_as_the_cause(
    database: Database, tmp_path: Path, text: str
) -> None:
    with pytest.raises(errors.UnavailableError, match="schema") as failure:
        await statement(tmp_path, text)(database)
    assert failure.value.retry_after == 10


async def test_without_a_free_connection_the_wait_ends(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(database_url, database_pool_size=1) as database:
        async with database.connection():
            monkeypatch.setattr(database, "acquire_seconds", 0.05)
            with pytest.raises(errors.UnavailableError) as failure:
                await asyncio.wait_for(q.accounts.has_admin(database), 3)
            assert isinstance(failure.value.__cause__, TimeoutError)
        monkeypatch.undo()
        assert await answers(database)


async def test_a_backend_that_is_ended_in_the_middle_is_unavailable_and_replaced(
    database_url: str, sql: Any, tmp_path: Path
) -> None:
    async with pool(database_url, database_pool_size=1) as database:
        async with database.connection() as connection:
            backend = connection.get_server_pid()
        running = asyncio.create_task(statement(tmp_path, "select pg_sleep(30)::text")(database))
        end = "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'"
        await until(lambda: sql.fetchval(end, backend))
        with pytest.raises(errors.UnavailableError):
            await running
        assert await answers(database)


async def test_a_backend_that_is_ended_between_two_statements_is_replaced(database_url: str, sql: Any) -> None:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(pool(database_url, database_pool_size=1))
        async with database.connection() as connection:
            backend = connection.get_server_pid()
        await sql.fetchval("select pg_terminate_backend($1, 10000)", backend)
        await until(lambda: answers(database))
        async with database.connection() as connection:
            assert connection.get_server_pid() != backend


async def test_a_programming_error_is_not_reported_as_a_database_error(database: Database, tmp_path: Path) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await statement(tmp_path, "selec 1")(database)
