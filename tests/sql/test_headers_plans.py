"""`sql plans` on a smaller set: every statement's plan goes with its header, and what does not is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import StartError
from service.db.pool import Connection
from service.db.statements import PLANS_FOLDER
from service.dba import plans, scratch_database
from service.dba.explain import fetch_plan, find, parse_values

ROWS = 20_000
LARGE = {"tasks", "task_search", "users"}
ALL_OF = "it reads all of {0}: give it an index, or say so by `scans: {0}`"
EXPLAINED = plans.planned_statements()


@pytest.fixture(scope="module")
async def filled(module_database_url: str) -> AsyncIterator[tuple[Connection, list[float]]]:
    """A session on a database with many tasks, and the shares of the work that were reported while it was filled."""
    shares: list[float] = []
    async with scratch_database.connected(module_database_url) as connection:
        # It writes each task anew: 10 s in place of 1.
        await connection.execute("alter table attachments disable trigger attachments_change_task")
    await scratch_database.fill(module_database_url, rows=ROWS, advance=shares.append)
    async with scratch_database.connected(module_database_url) as connection:
        yield connection, shares


async def test_every_plan_matches_its_header(filled: Any) -> None:
    connection, shares = filled
    names: list[str] = []
    before = await connection.fetchval("select (count(*), max(version), max(id))::text from tasks")
    problems, shapes = await plans.verify(connection, report=names.append)
    assert problems == []
    assert names == list(shapes) == [one.name for one in EXPLAINED]
    assert await connection.fetchval("select (count(*), max(version), max(id))::text from tasks") == before
    assert "tasks.list -created_at, an administrator\n  Limit\n    Index Scan backward using" in shapes["tasks.list"]
    assert min(shares) >= 0
    assert sum(shares) == pytest.approx(1)


def test_every_statement_has_its_plan_kept_and_nothing_else_is() -> None:
    kept = {path.stem: path.read_text(encoding="utf-8") for path in PLANS_FOLDER.glob("*.txt")}
    assert kept.keys() == {one.name for one in EXPLAINED}, "run `python -m service sql plans --write`"
    for one in EXPLAINED:
        assert all(f"{one.name} {sort}".rstrip() in kept[one.name] for sort in one.texts)


@pytest.mark.parametrize(
    ("name", "values", "header", "fault"),
    [
        (
            "tasks.get",
            [1, 1, True],
            {"index": ("users_pkey",)},
            "it is read by tasks_pkey, and the header says users_pkey",
        ),
        (
            "tasks.count_search",
            [1, True, None, None, None, None, None, "lorem"],
            {"scans": ()},
            ALL_OF.format("task_search"),
        ),
        (
            "accounts.has_admin",
            [],
            {"scans": ()},
            "it reads all of users: give it an index, or say so by `scans: users`",
        ),
        (
            "accounts.has_admin",
            [],
            {"index": ("users_pkey",)},
            "it is read by no index, and the header says",
        ),
    ],
)
async def test_a_plan_that_contradicts_its_header_is_reported(
    filled: Any, name: str, values: list[Any], header: dict[str, Any], fault: str
) -> None:
    connection, _ = filled
    statement = find(name)[0]
    plan = await fetch_plan(connection, statement, "", parse_values(statement, json.dumps(values)), analyze=True)
    changed = replace(statement, header=replace(statement.header, **header))
    assert [told for told in plans.mismatches(plan, changed, LARGE) if told.startswith(fault)]


async def test_a_sort_that_spills_is_reported(filled: Any) -> None:
    connection, _ = filled
    statement = find("tasks.list")[0]
    wide = replace(statement, texts={"": statement.texts["title"].replace("order by", "order by t.description,")})
    values = parse_values(statement, '{"viewer_id": 1, "viewer_is_admin": true, "row_limit": 30000, "row_offset": 0}')
    await connection.execute("set work_mem = '64kB'")
    try:
        plan = await fetch_plan(connection, wide, "", values, analyze=True)
    finally:
        await connection.execute("reset work_mem")
    assert "Sort does not fit into work_mem" in list(plans.mismatches(plan, wide, set()))


async def test_a_generic_plan_for_a_list_is_reported(filled: Any) -> None:
    connection, _ = filled
    statement = find("tasks.list")[0]
    one = replace(statement, texts={"": "select t.* from task_view as t where $1 = $1 or $2::boolean"})
    one = replace(one, header=replace(one.header, params=statement.header.params[:2]))
    assert await plans._generic_plans(connection, one, "", [{"viewer_id": "1", "viewer_is_admin": "true"}]) > 0


def test_snapshots_are_compared_and_renewed(tmp_path: Path) -> None:
    assert plans.compare({"tasks.get": "a\n"}, folder=tmp_path, write=True) == []
    assert plans.compare({"tasks.get": "a\n"}, folder=tmp_path) == []
    (told,) = plans.compare({"tasks.get": "b\n"}, folder=tmp_path)
    assert told.startswith(f"{tmp_path}/tasks.get.txt:1: ")
    assert len(plans.compare({"tasks.list": "b\n"}, folder=tmp_path)) == 2
    assert plans.compare({"tasks.list": "b\n"}, folder=tmp_path, write=True) == []
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.list.txt"]


async def test_a_scratch_database_is_created_and_dropped(own_database_url: str) -> None:
    import asyncpg

    async with scratch_database.database(own_database_url) as made:
        connection = await asyncpg.connect(made)
        assert await connection.fetchval("select count(*) from tasks") == 0
        name = await connection.fetchval("select current_database()")
        await connection.close()
    connection = await asyncpg.connect(own_database_url)
    assert not await connection.fetchval("select count(*) from pg_database where datname = $1", name)
    await connection.close()


async def test_a_scratch_database_that_cannot_be_created_is_reported() -> None:
    with pytest.raises(StartError, match="cannot create a scratch database"):
        async with scratch_database.database("postgresql://tasks:hunter2@127.0.0.1:1/tasks"):
            pass
