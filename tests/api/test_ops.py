"""Health and readiness with a working, an unavailable and an outdated database."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from service.app import VERSION
from service.db import migrations
from tests.conftest import make_settings
from tests.support.problems import problem
from tests.support.serving import serving

WAIT_SECONDS = 30
NOWHERE = "postgresql://nobody:hidden@127.0.0.1:1/nothing"


def not_ready(answer: httpx.Response) -> None:
    body = problem(answer, 503)
    assert body["code"] == "unavailable"
    assert "hidden" not in answer.text
    assert int(answer.headers["Retry-After"]) > 0


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until `/readyz` has the status; the listener reconnects at intervals."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_service_with_its_database_is_healthy_and_ready(client: httpx.AsyncClient) -> None:
    await ready(client)
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["Cache-Control"] == "no-store"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("TEXT/HTML", True),
        ("application/json;q=0.5, text/html;level=1;q=0.6", True),
        (";;,;q=,text/html ;q=1", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/xhtml+xml, text/*", False),
        ("text/plain, html", False),
    ],
)
async def test_the_root_redirects_browsers_to_the_documentation_and_links_it_for_others(
    client: httpx.AsyncClient, accept: str, html: bool
) -> None:
    answer = await client.get("/", headers={"Accept": accept})

    if html:
        assert (answer.status_code, answer.headers["Location"], answer.content) == (307, "/docs", b"")
    else:
        assert answer.status_code == 200
        assert answer.json() == {
            "name": "Task Manager",
            "version": VERSION,
            "docs": "/docs",
            "openapi": "/openapi.json",
        }
        for path in (answer.json()["docs"], answer.json()["openapi"]):
            assert (await client.get(path)).status_code == 200


async def test_without_a_database_the_process_is_healthy_and_not_ready() -> None:
    async with serving(make_settings(NOWHERE), listening=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        not_ready(await client.get("/readyz"))


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register"])
async def test_without_a_database_a_request_gets_retry_after(path: str) -> None:
    async with serving(make_settings(NOWHERE), listening=False) as client:
        not_ready(await client.post(path, json={"username": "ada", "password": "correct horse"}))


async def test_an_outdated_schema_is_not_ready_until_migrated(own_database_url: str) -> None:
    (newest,) = migrations.rollback(own_database_url, count=1)
    async with serving(make_settings(own_database_url), listening=False) as client:
        answer = await client.get("/readyz")
        not_ready(answer)
        assert "migrate" in answer.json()["detail"]
        assert (await client.get("/healthz")).status_code == 200
        assert await asyncio.to_thread(migrations.migrate, own_database_url) == [newest]
        await ready(client)


async def test_a_virgin_database_is_not_ready_until_migrated(empty_database_url: str) -> None:
    async with serving(make_settings(empty_database_url), listening=False) as client:
        not_ready(await client.get("/readyz"))
        await asyncio.to_thread(migrations.migrate, empty_database_url)
        await ready(client)


async def test_a_migration_of_a_newer_release_keeps_the_service_ready(own_database_url: str) -> None:
    connection = await asyncpg.connect(own_database_url)
    await connection.execute(
        "insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc) values ('x', '9999.later', now())"
    )
    await connection.close()
    async with serving(make_settings(own_database_url), listening=False) as client:
        await ready(client)


async def test_a_database_that_comes_back_makes_it_ready_again(
    sql: asyncpg.Connection[asyncpg.Record], own_database_url: str
) -> None:
    name = urlsplit(own_database_url).path[1:]
    async with serving(make_settings(own_database_url), listening=False) as client:
        await ready(client)
        await sql.execute(f"alter database {name} allow_connections false")
        await sql.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
        not_ready(await client.get("/readyz"))
        await sql.execute(f"alter database {name} allow_connections true")
        await ready(client)
