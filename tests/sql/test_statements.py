"""Statement files: the syntax of headers, the expansion of sorts and the results of calls."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from service.core import metrics
from service.core.errors import InvalidError, UnavailableError
from service.db import pool
from service.db.headers import HeaderError, Parameter
from service.db.pool import Database
from service.db.statements import Statement, load, read, read_all
from tests.conftest import make_settings

SORTED = """\
-- A page of things.
-- returns: rows
-- params: owner bigint, after_value text?, after_id bigint?
-- sort: made: t.made timestamptz, t.id bigint
-- sort: id: t.id bigint, t.id bigint
select t.id from things as t
where
    t.owner = $1
    and /* after */ ($3::bigint is null or (t.made, t.id, 1) <= ($2::text::timestamptz, $3::bigint, 0))
order by /* sort */ t.made desc, t.id desc
limit 3;
"""


def write(folder: Path, text: str, *, name: str = "things/list.sql") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def statement(folder: Path, text: str) -> Statement:
    return read(write(folder, text), folder=folder)


def test_a_header_is_read_whole(tmp_path: Path) -> None:
    one = statement(
        tmp_path,
        "-- What it does.\n-- returns: row?\n-- params: id bigint,\n--   names text[]?\n-- index: one_idx, two_idx\n"
        "-- raises: one_check -> invalid,\n--   one_key -> conflict\n-- why: because\n--   it is so.\nselect 1;\n",
    )
    header = one.header
    assert (header.sentence, header.returns, header.why) == ("What it does.", "row?", "because it is so.")
    assert header.params == (Parameter("id", "bigint", nullable=False), Parameter("names", "text[]", nullable=True))
    assert header.index == ("one_idx", "two_idx")
    assert header.raises == {"one_check": "invalid", "one_key": "conflict"}
    assert one.line == 10


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("select 1;", 1),
        ("-- No sentence\n-- returns: value\nselect 1;", 1),
        ("-- A sentence.\nselect 1;", 1),
        ("-- A sentence.\n-- returns: everything\nselect 1;", 2),
        ("-- A sentence.\n-- returns: value\n-- returns: row\nselect 1;", 3),
        ("-- A sentence.\n-- returns: value\n-- index: a\n-- colour: red\nselect 1;", 4),
        ("-- A sentence.\n-- returns: value\n-- just a remark\nselect 1;", 3),
        ("-- A sentence.\n-- returns: value\n-- params: id\nselect $1;", 3),
        ("-- A sentence.\n-- returns: value\n-- params: id ?\nselect $1;", 3),
        ("-- A sentence.\n-- returns: value\n-- params: 1d bigint\nselect $1;", 3),
        ("-- A sentence.\n-- returns: value\n-- params: id bigint,\n--   id bigint\nselect $1;", 3),
        ("-- A sentence.\n-- returns: value\n-- raises: tasks_title_check\nselect 1;", 3),
        ("-- A sentence.\n-- returns: value\n", 3),
        ("-- A sentence.\n-- returns: value\n;\n", 3),
        (SORTED.replace("t.made timestamptz, t.id bigint", "t.made"), 4),
        (SORTED.replace("t.made timestamptz, t.id bigint", "t.made timestamptz desc, t.id bigint"), 4),
        (SORTED.replace("after_id bigint?", "other bigint?"), 6),
        (SORTED.replace("(t.made, t.id, 1) <", "(t.made, t.id, 1) >"), 6),
        (SORTED.replace("t.made desc, t.id desc", "t.made desc"), 6),
        (SORTED.replace("/* sort */ ", ""), 6),
        (SORTED.replace("limit 3", "/* sort */ t.made desc"), 6),
    ],
)
def test_a_malformed_file_is_reported_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(HeaderError) as failure:
        read(path, folder=tmp_path)
    assert str(failure.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(failure.value)


def test_a_file_that_is_not_utf_8_is_reported_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes("-- A sentence.\n-- returns: value\n-- why: Grüße\nselect 1;".encode("latin-1"))
    with pytest.raises(HeaderError) as failure:
        read(path, folder=tmp_path)
    assert str(failure.value).startswith(f"{path}:3: ")


def test_a_sort_becomes_one_plain_statement_for_each_direction(tmp_path: Path) -> None:
    texts = statement(tmp_path, SORTED).texts
    assert list(texts) == ["-made", "made", "-id", "id"]
    wheres = {
        sort: [line.strip() for line in text.splitlines() if re.search(r"/\* (after|sort) ", line)]
        for sort, text in texts.items()
    }
    assert wheres == {
        "-made": [
            "and /* after */ ($3::bigint is null or (t.made, t.id, 1) <= ($2::text::timestamptz, $3::bigint, 0))",
            "order by /* sort */ t.made desc, t.id desc",
        ],
        "made": [
            "and /* after */ ($3::bigint is null or (t.made, t.id, 0) >= ($2::text::timestamptz, $3::bigint, 1))",
            "order by /* sort */ t.made asc, t.id asc",
        ],
        "-id": [
            "and /* after */ ($3::bigint is null or (t.id, t.id, 1) <= ($2::text::bigint, $3::bigint, 0))",
            "order by /* sort */ t.id desc, t.id desc",
        ],
        "id": [
            "and /* after */ ($3::bigint is null or (t.id, t.id, 0) >= ($2::text::bigint, $3::bigint, 1))",
            "order by /* sort */ t.id asc, t.id asc",
        ],
    }


def test_a_sort_expands_at_each_placeholder(tmp_path: Path) -> None:
    inner = "from (select t.* from things as t order by /* sort */ t.made desc, t.id desc\nlimit 9) as t"
    texts = statement(tmp_path, SORTED.replace("from things as t", inner)).texts
    assert texts["id"].count("order by /* sort */ t.id asc, t.id asc\n") == 2
    assert all(text.count("/* sort */") == 2 for text in texts.values())
    with pytest.raises(HeaderError, match="take the text of the first sort"):
        statement(tmp_path, SORTED.replace("from things as t", inner.replace("t.id desc", "t.id asc")))


def test_the_first_sort_is_the_file_as_it_is_written(tmp_path: Path) -> None:
    text = statement(tmp_path, SORTED).texts["-made"]
    assert text.replace("/* things.list -made */ ", "") == SORTED[SORTED.index("select") :].rstrip().removesuffix(";")


def test_every_statement_begins_with_a_tag_that_names_its_file() -> None:
    everything = read_all()
    assert len(everything) > 10
    for one in (one for one in everything if one.header.returns != "script"):
        for sort, text in one.texts.items():
            assert re.match(rf"\w+ /\* {re.escape(f'{one.name} {sort}'.strip())} \*/\s", text)
            assert (one.path.parent.name, one.path.stem) == tuple(one.name.split("."))


def test_a_path_is_a_name(tmp_path: Path) -> None:
    write(tmp_path, "-- One.\n-- returns: value\nselect 1;", name="a/one.sql")
    write(tmp_path, "-- Two.\n-- returns: value\nselect 2;", name="b/two.sql")
    q = load(tmp_path)
    assert (q.a.one.name, q.b.two.name) == ("a.one", "b.two")
    assert vars(q).keys() == {"a", "b"}


@pytest.mark.parametrize("values", [{}, {"one": 1}, {"one": 1, "two": 2, "three": 3}, {"one": 1, "tow": 2}])
async def test_keywords_are_those_of_the_header(tmp_path: Path, database: Database, values: dict[str, Any]) -> None:
    add = statement(
        tmp_path, "-- Adds.\n-- returns: value\n-- params: one bigint, two bigint\nselect $1::bigint + $2::bigint;"
    )
    assert await add(database, two=2, one=40) == 42
    with pytest.raises(TypeError, match=r"things\.list"):
        await add(database, **values)


TWO_ROWS = "select * from (values (1, 'a'), (2, 'b')) as t (id, name) order by id"


@pytest.mark.parametrize(
    ("returns", "text", "expected"),
    [
        ("value", "select 7", 7),
        ("value", "select null::int", None),
        ("row", TWO_ROWS, {"id": 1, "name": "a"}),
        ("row?", f"{TWO_ROWS} offset 2", None),
        ("rows", TWO_ROWS, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]),
        ("rows", f"{TWO_ROWS} offset 2", []),
        ("count", TWO_ROWS, 2),
        ("count", "update users set role = role where false", 0),
    ],
)
async def test_a_call_returns_what_the_header_declares(
    tmp_path: Path, database: Database, returns: str, text: str, expected: Any
) -> None:
    one = statement(tmp_path, f"-- A sentence.\n-- returns: {returns}\n{text};")
    result = await one(database)
    if isinstance(expected, dict):
        result = dict(result)
    if isinstance(expected, list):
        result = [dict(row) for row in result]
    assert result == expected


async def test_a_call_accepts_a_connection_and_stays_in_its_transaction(tmp_path: Path, database: Database) -> None:
    one = statement(tmp_path, "-- A sentence.\n-- returns: value\nselect now();")
    async with database.connection() as connection, connection.transaction():
        assert await one(connection) == await one(connection)


async def test_an_error_of_the_database_comes_as_the_services_own(tmp_path: Path, database: Database) -> None:
    divide = statement(tmp_path, "-- Divides.\n-- returns: value\n-- params: by bigint\nselect 1 / $1;")
    with pytest.raises(InvalidError):
        await divide(database, by=0)


async def test_an_estimate_is_near_the_number_of_rows_and_reads_none(tmp_path: Path, database: Database) -> None:
    one = statement(
        tmp_path,
        "-- Many.\n-- returns: stream\n-- params: row_count bigint\nselect n from generate_series(1, $1::bigint) as n;",
    )
    assert await one.estimate(database, row_count=10**15) == 10**15


async def test_the_time_of_a_reader_does_not_count_for_the_statement(tmp_path: Path, database: Database) -> None:
    text = "-- Many.\n-- returns: stream\nselect n from generate_series(1, 1000) as n;"
    path = write(tmp_path, text, name="slow.sql")
    begun = time.perf_counter()
    async for _ in read(path, folder=tmp_path).stream(database):
        await asyncio.sleep(0.1)
    (seconds,) = measured("slow", "sum")
    assert 0 < seconds < time.perf_counter() - begun - 0.5


async def test_a_stream_that_gets_no_connection_is_not_a_fast_statement(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "-- Many.\n-- returns: stream\nselect 1;", name="away.sql")
    settings = make_settings(database_url, database_pool_size=1)
    async with pool.connected(database_url, settings) as database, database.connection():
        monkeypatch.setattr(database, "acquire_seconds", 0.01)
        with pytest.raises(UnavailableError):
            await anext(read(path, folder=tmp_path).stream(database))
    assert measured("away", "count") in ([], [0])


def measured(name: str, what: str) -> list[float]:
    """Return a sample of the metric of a statement's times."""
    (metric,) = metrics.STATEMENTS.collect()
    return [one.value for one in metric.samples if one.name.endswith(what) and one.labels == {"statement": name}]
