"""`/admin/queries`: the statements with their statistics and plans, for administrators, if the routes are enabled."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from service.accounts.passwords import Passwords
from service.app import create_app
from service.core.errors import UnavailableError
from service.db import pool
from service.db.pool import Connection
from service.db.statements import read_all
from service.dba import admin_view, top
from tests.conftest import make_settings
from tests.support.factories import Factory
from tests.support.problems import problem

PATHS = ["/admin/queries", "/admin/queries/tasks.get/plan"]


@pytest.mark.parametrize("path", PATHS)
async def test_only_administrators_may_read_statements(make: Factory, client: httpx.AsyncClient, path: str) -> None:
    problem(await client.get(path), 401)
    problem(await (await make.user()).client.get(path), 403)
    assert (await (await make.admin()).client.get(path)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_the_routes_are_missing_if_they_are_not_enabled(
    sql: asyncpg.Connection[asyncpg.Record], database_url: str, path: str
) -> None:
    app = create_app(make_settings(database_url), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        answer = await (await Factory(sql, app).admin()).client.get(path)
    assert problem(answer, 404)["detail"] == "There is nothing at this path."
    assert "/admin/queries" not in app.openapi()["paths"]


async def test_every_statement_is_listed_with_what_runs_it(make: Factory) -> None:
    listed = (await (await make.admin()).client.get("/admin/queries")).json()
    items = {one["name"]: one for one in listed["items"]}
    assert list(items) == [one.name for one in read_all()]
    assert items["tasks.get"]["run_by"] == [f"{method} /tasks/{{task_id}}" for method in ("GET", "PATCH", "PUT")]
    assert items["tasks.get"]["file"] == "sql/tasks/get.sql"
    assert "pg_stat_statements" in (listed["figures_missing"] or "pg_stat_statements")


@pytest.mark.parametrize("name", ["tasks.get", "tasks.list title", "tasks.list", "tasks.delete"])
async def test_a_plan_is_returned_and_the_statement_is_not_run(make: Factory, name: str) -> None:
    ada = await make.admin()
    task = await make.task(ada)
    plan = (await ada.client.get(f"/admin/queries/{quote(name)}/plan")).json()
    assert plan["name"].startswith(name)
    assert "$1" in "".join(plan["lines"])
    assert plan["lines"][0].startswith(plan["plan"]["Node Type"])
    assert not any("actual" in line for line in plan["lines"])
    assert (await ada.client.get(f"/tasks/{task}")).json()["version"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "tasks.gets",
        "tasks.get title",
        "'; drop table tasks; --",
        "..",
        "dba.roles",
        "tasks.get\x00",
        "x" * 200,
    ],
)
async def test_an_unknown_statement_is_not_found(make: Factory, name: str) -> None:
    answer = await (await make.admin()).client.get(f"/admin/queries/{quote(name, safe='')}/plan")
    problem(answer, 404)


async def test_a_name_that_is_too_long_is_refused(make: Factory) -> None:
    answer = await (await make.admin()).client.get(f"/admin/queries/{'x' * 201}/plan")
    problem(answer, 422, pointers={"/path/name"})


@pytest.mark.parametrize("ask", [admin_view.listing, lambda database: admin_view.plan(database, "tasks.get")])
async def test_an_unavailable_database_and_an_outdated_schema_are_reported(empty_database_url: str, ask: Any) -> None:
    for url in ("postgresql://tasks@127.0.0.1:1/tasks", empty_database_url):
        async with pool.connected(url, make_settings(url)) as database:
            with pytest.raises(UnavailableError):
                await ask(database)


async def test_statistics_are_listed_with_their_statements(monkeypatch: pytest.MonkeyPatch, make: Factory) -> None:
    """What pg_stat_statements says is tested in test_top; here it is put beside the catalogue."""

    async def costs(_connection: Connection) -> list[top.StatementCost]:
        return [
            top.StatementCost("tasks.list title", 2, 3.0, 1.5, 40, 99.5, 0),
            top.StatementCost("tasks.list -title", 2, 9.0, 4.5, 40, None, 0),
        ]

    monkeypatch.setattr(top, "costs", costs)
    listed = (await (await make.admin()).client.get("/admin/queries")).json()
    assert listed["figures_missing"] is None
    items = {one["name"]: one["figures"] for one in listed["items"]}
    assert [one["name"] for one in items["tasks.list"]] == ["tasks.list -title", "tasks.list title"]
    assert items["tasks.list"][1]["hit_percent"] == 99.5
    assert items["tasks.get"] == []
