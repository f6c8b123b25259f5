"""A rolling deploy: the statements of the release before run on this release's schema, as they did on theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from service.db import migrations
from service.db.pool import Connection
from service.db.statements import Statement, read_all
from service.dba import plans, scratch_database
from service.dba.explain import fetch_plan
from tests.migrations.previous import KEPT, statements

PREVIOUS: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
STATEMENTS: dict[str, dict[str, Any]] = PREVIOUS["statements"]
PRESENT = {one.name: one for one in read_all()}
# Statements of this release that have the parameters of previous ones, whose own name has others now.
SUCCESSORS = {"tasks.count": "tasks.count_search", "tasks.search": "tasks.search_walk"}
ROWS = 20_000


@pytest.fixture(scope="module")
async def filled(module_database_url: str) -> AsyncIterator[Connection]:
    """A session on this release's schema, with rows."""
    async with scratch_database.connected(module_database_url) as connection:
        await connection.execute("alter table attachments disable trigger attachments_change_task")
        await scratch_database.fill(module_database_url, rows=ROWS)
        await connection.execute("alter table attachments enable trigger attachments_change_task")
        yield connection


def test_the_previous_release_is_an_earlier_one_of_this_line() -> None:
    there = migrations.release_ids()
    assert there[: len(PREVIOUS["migrations"])] == PREVIOUS["migrations"]
    assert len(STATEMENTS) > 50


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_of_the_previous_release_keeps_its_parameters_and_columns(
    filled: Connection, name: str
) -> None:
    kept = STATEMENTS[name]
    prepared = await filled.prepare(kept["text"])
    assert [kind.name for kind in prepared.get_parameters()] == kept["parameters"]
    columns = {column.name: column.type.name for column in prepared.get_attributes()}
    assert columns.items() >= (kept["columns"] or {}).items()


def carried_out() -> Iterator[tuple[str, Statement]]:
    for name, kept in STATEMENTS.items():
        path, _, sort = name.partition(" ")
        present = PRESENT.get(SUCCESSORS.get(path, path))
        if present and sort in present.texts:
            parameters = present.header.params[: len(kept["parameters"])]  # new ones come last
            yield name, replace(present, header=replace(present.header, params=parameters), texts={sort: kept["text"]})


CARRIED_OUT = dict(carried_out())


@pytest.mark.parametrize("name", CARRIED_OUT)
async def test_a_statement_of_the_previous_release_runs(filled: Connection, name: str) -> None:
    """What it writes must not miss a column that the new schema wants."""
    statement, types = CARRIED_OUT[name], STATEMENTS[name]["parameters"]
    cases = plans.cases(statement, plans.read_samples(), rows=ROWS)
    for _, values in cases:
        await fetch_plan(filled, statement, "", values, analyze=True, types=types)


async def test_a_migration_that_breaks_a_statement_is_detected(own_database_url: str) -> None:
    async with scratch_database.connected(own_database_url) as connection:
        before = await statements(own_database_url)
        await connection.execute("alter table users rename column active to is_active")
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.prepare(before["accounts.credentials"]["text"])
