"""Exports: what is in them, what a spreadsheet makes of them, and what ends them."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from service.api import connection, protocols, responses
from service.api.streaming import export as exports
from service.db import pool
from tests.support.factories import Factory, User
from tests.support.lists import NOON
from tests.support.problems import problem
from tests.support.sockets import on_port

RUNNING = "select count(*) from pg_stat_activity where datname = current_database() and query like '%tasks.export%'"
RUNNING += " and state <> 'idle' and pid <> pg_backend_pid()"
HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20x",
    '=HYPERLINK("http://x","y")',
]


async def export(user: User, **params: Any) -> list[Any]:
    answer = await user.client.get("/tasks/export", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="tasks.ndjson"'
    assert answer.content.endswith(b"\n") or not answer.content
    return [orjson.loads(line) for line in answer.content.splitlines()]


async def rows(user: User, **params: Any) -> list[dict[str, str]]:
    answer = await user.client.get("/tasks/export", params={"format": "csv", **params})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.headers["content-disposition"] == 'attachment; filename="tasks.csv"'
    return list(csv.DictReader(io.StringIO(answer.content.decode(), newline=""), strict=True))


async def fill(make: Factory) -> tuple[User, User, User]:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    for n in range(30):
        await make.task(
            [ada, ada, bob][n % 3],
            title=f"{'Plan' if n % 2 else 'Report'} {n % 5}",
            description=[None, 'two\r\n"lines", one\u2028🦊'][n % 4 // 2],
            status=["todo", "in_progress", "done"][n % 5 % 3],
            city=["Oslo", None][n % 4 // 2],
            created_at=NOON + timedelta(days=n),
            weather=None if n % 2 else '{"temperature": 1.5, "condition": "Snow"}',
        )
    return ada, bob, root


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"status": ["todo", "done"]},
        {"city": "Oslo"},
        {"start_date": "2025-05-28", "end_date": "2025-06-05"},
        {"q": "reports"},
        {"q": "report", "status": "done", "city": "Oslo", "start_date": "2025-05-28"},
        {"q": ""},
    ],
    ids=str,
)
async def test_an_export_has_what_the_list_has(make: Factory, filters: dict[str, Any]) -> None:
    ada, bob, root = await fill(make)
    for user, more in ((ada, {}), (root, {}), (root, {"user_id": bob.id}), (bob, {"user_id": bob.id})):
        params = {**filters, **more}
        listed = await user.client.get("/tasks", params={"sort": "id", "limit": 100, **params})
        tasks = listed.json()["items"]
        assert await export(user, **params) == tasks
        found = await rows(user, **params)
        assert len(found) == len(tasks)
        for row, task in zip(found, tasks, strict=True):
            assert row.keys() == task.keys()
            assert orjson.loads(row.pop("weather") or "null") == task.pop("weather")
            assert row == {name: "" if value is None else str(value) for name, value in task.items()}


async def test_an_export_of_many_batches_is_whole(make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute(
        "insert into tasks (user_id, title) select $1, 'task ' || n from generate_series(1, 1001) n", ada.id
    )
    tasks = await export(ada)
    assert [task["title"] for task in tasks] == [f"task {n}" for n in range(1, 1002)]
    assert len(await rows(ada)) == 1001


async def test_an_export_of_nothing_is_empty_and_a_table_has_its_head(make: Factory) -> None:
    ada = await make.user()
    assert await export(ada) == []
    answer = await ada.client.get("/tasks/export?format=csv")
    assert answer.text == "id,title,description,status,city,weather,user_id,created_at,updated_at,version\r\n"


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_cell_that_a_spreadsheet_would_run_is_defused(make: Factory, text: str) -> None:
    ada = await make.user()
    await make.task(ada, title=text, description=text, city=text)
    (row,) = await rows(ada)
    assert [row[name] for name in ("title", "description", "city")] == [f"'{text}"] * 3
    assert (await export(ada))[0]["title"] == text


@pytest.mark.parametrize("text", ["a;=1+1", ";@x", "a;b;-1", "x;\t=1"])
async def test_a_cell_after_a_semicolon_is_defused(make: Factory, text: str) -> None:
    ada = await make.user()
    await make.task(ada, title=text)
    (row,) = await rows(ada)
    assert row["title"].count("'") == 1
    assert row["title"].replace("'", "") == text
    assert not re.search(r";[=+\-@\t]", row["title"])


@pytest.mark.parametrize(("params", "begins"), [("&bom=true", True), ("&bom=false", False), ("", False)])
async def test_a_table_begins_with_a_byte_order_mark_on_request(make: Factory, params: str, begins: bool) -> None:
    ada = await make.user()
    await make.task(ada, title="Zürich")
    answer = await ada.client.get(f"/tasks/export?format=csv{params}")
    assert answer.content.startswith(b"\xef\xbb\xbfid,title") is begins
    assert answer.content.count(b"\xef\xbb\xbf") == begins
    assert "Zürich" in answer.text


async def test_the_head_alone_renders_no_task(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await make.user()
    await make.task(ada)
    monkeypatch.setattr(responses, "json_line", None)
    answer = await ada.client.head("/tasks/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")


async def test_exporting_tasks_of_another_user_is_forbidden(make: Factory, client: httpx.AsyncClient) -> None:
    ada, bob, _ = await fill(make)
    problem(await ada.client.get("/tasks/export", params={"user_id": bob.id}), 403)
    problem(await client.get("/tasks/export"), 401)


@pytest.mark.parametrize(
    "params",
    [
        {"format": "xlsx"},
        {"limit": "1"},
        {"sort": "id"},
        {"cursor": "x"},
        {"q": "\0"},
        {"count": "exact"},
        {"bom": "true"},
    ],
)
async def test_parameters_that_an_export_does_not_have_are_refused(make: Factory, params: dict[str, str]) -> None:
    ada = await make.user()
    (name,) = params
    problem(await ada.client.get("/tasks/export", params=params), 422, pointers={f"/query/{name}"})


# On a socket


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    async with on_port(app) as port:
        yield port


@pytest.fixture
async def owner(make: Factory) -> User:
    """A user whose export is more than what sockets hold."""
    ada = await make.user()
    await make.sql.execute(
        "insert into tasks (user_id, title, description)"
        " select $1, 'x', 'x' || repeat(' ', 9998) || 'x' from generate_series(1, 2000) n",
        ada.id,
    )
    return ada


async def begin(port: int, user: User) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for an export and read as far as its first byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    head = f"GET /tasks/export HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {user.token}\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    return reader, writer


async def taken(reader: asyncio.StreamReader) -> bytes:
    """Return all bytes until the connection ends."""
    body = b""
    with suppress(ConnectionResetError):
        while part := await reader.read(1 << 20):
            body += part
    return body


async def until_ended(sql: asyncpg.Connection[asyncpg.Record]) -> None:
    async with asyncio.timeout(10):
        while await sql.fetchval(RUNNING):
            await sql.execute("select pg_sleep(0.02)")


async def test_a_client_that_leaves_ends_its_statement(
    make: Factory, port: int, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Any] = []
    line = responses.json_line

    def counted(row: Any) -> bytes:
        rendered.append(row)
        return line(row)

    monkeypatch.setattr(responses, "json_line", counted)
    _, writer = await begin(port, owner)
    assert await make.sql.fetchval(RUNNING) == 1
    writer.transport.abort()
    await until_ended(make.sql)
    assert 0 < len(rendered) < 2000


async def test_a_client_that_stalls_is_cut_off(
    make: Factory,
    port: int,
    owner: User,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    monkeypatch.setattr(exports, "STALL_SECONDS", 0.2)
    reader, writer = await begin(port, owner)
    await until_ended(make.sql)
    assert not (await taken(reader)).endswith(b"0\r\n\r\n")
    writer.close()
    (line,) = logged
    assert line.startswith("INFO export aborted")


async def test_an_export_has_more_time_than_another_answer(
    make: Factory, port: int, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POLL_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(protocols, "MAX_STALL_SECONDS", 0.2)
    monkeypatch.setattr(exports, "STALL_SECONDS", 2)
    begun = asyncio.get_running_loop().time()
    _, writer = await begin(port, owner)
    await until_ended(make.sql)
    assert asyncio.get_running_loop().time() - begun >= 2
    writer.close()


async def test_each_chunk_of_an_export_has_its_own_timeout(app: FastAPI, owner: User) -> None:
    """However many rows are read together: a client that takes a piece in STALL_SECONDS gets all."""
    sizes: list[int] = []

    async def weighed(scope: Scope, receive: Receive, send: Send) -> None:
        async def weigh(message: Message) -> None:
            sizes.append(len(message.get("body", b"")))
            await send(message)

        await app(scope, receive, weigh)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(weighed), base_url="http://test") as client:
        answer = await client.get("/tasks/export", headers={"Authorization": f"Bearer {owner.token}"})
    assert (answer.text.count("\n"), len(answer.content)) == (2000, sum(sizes))
    assert max(sizes) == exports.CHUNK_BYTES


async def test_an_error_in_the_middle_breaks_the_connection_off(
    make: Factory, port: int, owner: User, logged: list[str]
) -> None:
    reader, writer = await begin(port, owner)
    ended = await make.sql.fetchval(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and query like '%tasks.export%' and pid <> pg_backend_pid()"
    )
    assert ended
    assert not (await taken(reader)).endswith(b"0\r\n\r\n")
    writer.close()
    assert [line.partition(" {")[0] for line in logged] == ["WARNING export failed"]


async def test_an_export_above_the_limit_gets_retry_after(
    make: Factory, port: int, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "SLOT_TIMEOUT_SECONDS", 0.1)
    admin, third = await make.admin(), await make.user()
    writers = [(await begin(port, owner))[1]]
    problem(await owner.client.get("/tasks/export"), 503)  # one's own may not be all
    writers += [(await begin(port, admin))[1] for _ in range(pool.MAX_EXPORTS - 1)]
    answer = await third.client.get("/tasks/export")
    problem(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert (await owner.client.get("/analytics")).status_code == 200
    monkeypatch.setattr(exports, "SLOT_TIMEOUT_SECONDS", 60)
    waiting = asyncio.create_task(owner.client.get("/tasks/export"))
    for writer in writers:
        writer.transport.abort()
    assert (await waiting).text.count("\n") == 2000
    await until_ended(make.sql)
