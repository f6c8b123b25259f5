"""`sql top`: statistics by the tags of the files with pg_stat_statements, and the error without it."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from service.core.errors import UnavailableError
from service.db.statements import read_all
from service.dba import top
from tests.support.postgresql import measuring, psql


@pytest.fixture(scope="module")
def measured_url() -> Iterator[str]:
    """An empty database with pg_stat_statements."""
    with measuring() as url:
        yield url


async def test_without_the_extension_one_line_explains_how_to_enable_it(
    sql: asyncpg.Connection[asyncpg.Record],
) -> None:
    await sql.execute("drop extension if exists pg_stat_statements")
    with pytest.raises(UnavailableError, match=r"shared_preload.*create extension pg_stat") as raised:
        await top.costs(sql)
    assert "\n" not in raised.value.detail


async def test_statistics_are_grouped_by_file_and_sort(measured_url: str) -> None:
    connection = await asyncpg.connect(measured_url)
    try:
        await connection.execute("create table things (id int); insert into things select generate_series(1, 5)")
        await connection.execute("select pg_stat_statements_reset()")
        for _ in range(3):
            await connection.fetch("select /* tasks.list -title */ id from things where id <> $1", 0)
        await connection.fetch("with /* tasks.get */ a as (select 1 as one) select one + $1 as two from a", 1)
        await connection.fetch("/* tasks.get */ select id + 1 as lead from things")
        await connection.fetch("select 'select /* tasks.update */' as quoted, id from things")
        found = {one.name: one for one in await top.costs(connection)}
    finally:
        await connection.close()
    assert found.keys() == {"tasks.list -title", "tasks.get", "other"}
    listed = found["tasks.list -title"]
    assert (listed.calls, listed.rows, listed.spilled_blocks) == (3, 15, 0)
    assert listed.mean_ms == pytest.approx(listed.total_ms / 3)
    assert listed.hit_percent == 100
    assert found["tasks.get"].hit_percent is None


@pytest.mark.parametrize(("by", "first"), [("total", "b"), ("mean", "a"), ("calls", "c"), ("rows", "c")])
def test_statements_are_sorted_by_cost_with_foreign_ones_last(by: str, first: str) -> None:
    statistics = [
        top.StatementCost("other", 99, 99.0, 99.0, 99, None, 0),
        top.StatementCost("a", 1, 5.0, 5.0, 1, 50.0, 0),
        top.StatementCost("b", 3, 6.0, 2.0, 1, 50.0, 7),
        top.StatementCost("c", 9, 1.0, 0.1, 9, 50.0, 0),
    ]
    names = [one.name for one in top.ordered(statistics, by=by)]
    assert (names[0], names[-1]) == (first, "other")
    assert top.table(statistics).splitlines()[3].split() == ["b", "3", "6.0", "2.000", "1", "50.0", "7"]


@pytest.mark.parametrize("name", [one.name for one in read_all() if one.header.extension])
async def test_a_statement_that_needs_the_extension_runs_where_it_is(measured_url: str, name: str) -> None:
    statement = next(one for one in read_all() if one.name == name)
    connection = await asyncpg.connect(measured_url)
    try:
        assert await statement(connection)
    finally:
        await connection.close()
    ended = psql(measured_url, "-f", str(statement.path))
    assert (ended.returncode, ended.stderr) == (0, "")
