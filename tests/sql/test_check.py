"""`sql check`: the repository's own files hold, and each kind of mistake is told with its file and line."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from service.db import errors
from service.db.statements import FOLDER, read_all
from service.dba import check as module
from service.dba.check import check
from service.dba.stub import STUB

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

GOOD = """\
-- One task's title.
-- returns: row?
-- params: task_id bigint, title text?
-- index: tasks_pkey
-- raises: tasks_title_check -> invalid
update tasks as t set description = null
where t.id = $1 and t.title = $2
returning
    t.title,
    t.weather,
    t.version;
"""
SORTED = """\
-- A page of titles.
-- returns: rows
-- params: after_value text?, after_id bigint?
-- sort: title: t.title text, t.id bigint
-- sort: id: t.id bigint, t.id bigint
select t.title
from tasks as t
where /* after */ ($2::bigint is null or (t.title, t.id, 1) <= ($1::text::text, $2::bigint, 0))
order by /* sort */ t.title desc, t.id desc
limit 1;
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of statements with one good file in it."""
    (tmp_path / "sql" / "tasks").mkdir(parents=True)
    (tmp_path / "sql" / "tasks" / "title.sql").write_text(GOOD, encoding="utf-8")
    return tmp_path / "sql"


async def test_the_files_of_the_repository_are_valid_and_the_stub_is_current(sql: Session) -> None:
    assert await check(sql) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("-- One task's title.", "-- One task's title", ":1: takes a comment"),
        ("row?", "line", ":2: `returns`: takes one of"),
        ("task_id bigint", "task_id integer", ":3: params: $1 is int8 to the server, and int4 in the header"),
        ("title text?", "title text[]?", ":3: params: $2 is text to the server, and text[] in the header"),
        (", title text?", "", ":3: params: $2 is text to the server, and nothing in the header"),
        ("title text?", "title text?, more bigint", ":3: params: $3 is not used to the server, and int8 in the header"),
        (
            "    t.version;",
            "    t.version,\n    t.id as title;",
            ":6: columns: two columns are called title: rename one",
        ),
        ("    t.version;", "    t.version + 1;", ":6: columns: a column has no name: name it with `as`"),
        (
            "t.title = $2",
            "($2::text is null or t.title = $2) and $1::bigint is null",
            ":3: params: $1 is compared with null",
        ),
        (
            "-- index: tasks_pkey",
            "-- index: users_pkey",
            ":4: index: users_pkey is of users, which the statement does not",
        ),
        ("-- index: tasks_pkey", "-- scans: users", ":4: scans: the statement does not read users: remove it"),
        ("-- index: tasks_pkey", "-- nullable: name", ":4: nullable: there is no column name: remove it"),
        ("-- index: tasks_pkey", "-- nullable: weather", ":4: nullable: weather may be null in its table already"),
        ("row?", "count", ":2: returns: count does not fit 3 columns"),
        ("row?", "value", ":2: returns: value does not fit 3 columns"),
        ("tasks_pkey", "tasks_pke", ":4: index: the schema has no tasks_pke"),
        ("tasks_pkey", "tasks_title_check", ":4: index: the schema has no tasks_title_check"),
        ("tasks_title_check", "tasks_titel_check", ":5: raises: the schema has no tasks_titel_check"),
        (
            "tasks_title_check -> invalid",
            "tasks_title_check -> conflict",
            ":5: raises: db/errors.py does not map tasks_title_check -> conflict",
        ),
        (
            "tasks_title_check -> invalid",
            "tasks_pkey -> conflict",
            ":5: raises: db/errors.py does not map tasks_pkey -> conflict",
        ),
        ("    t.weather,", "    t.wether,", ":10: column t.wether does not exist"),
        ("update tasks", "updat tasks", ":6: syntax error"),
        ("update tasks", "update taks", ':6: relation "taks" does not exist'),
        ("t.id = $1", "t.id = $1 and", ':7: syntax error at or near "and"'),
        (
            "-- raises: tasks_title_check -> invalid",
            "-- raises: users_role_check -> invalid",
            ":5: raises: users_role_check is of users, which the statement does not write: remove it",
        ),
        (
            "t.version",
            "t.version::numeric as version",
            ":6: columns: numeric is a type that stub.PYTHON lacks: cast it to another, or add it there",
        ),
        (
            " and t.title = $2",
            " and t.version = $2",
            ":3: params: $2 is int8 to the server, and text in the header: write bigint",
        ),
    ],
)
async def test_a_mistake_is_reported_with_its_file_and_line(
    sql: Session, folder: Path, tmp_path: Path, *, old: str, new: str, problem: str
) -> None:
    stub = tmp_path / "queries.pyi"
    assert await check(sql, folder=folder, stub_path=stub, write=True) == []
    file = folder / "tasks" / "title.sql"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    (found,) = await check(sql, folder=folder, stub_path=stub)
    assert found.startswith(f"{file}{problem}")
    assert "\n" not in found


async def test_a_mistake_in_a_later_sort_is_reported_at_the_line_of_its_expansion(sql: Session, folder: Path) -> None:
    file = folder / "tasks" / "title.sql"
    file.write_text(SORTED.replace("id: t.id bigint", f"id: t.{'i' * 80}d bigint", 1), encoding="utf-8")
    (found,) = await check(sql, folder=folder, stub_path=folder / "queries.pyi")
    assert found.startswith(f"{file}:8: column t.iii")


async def test_a_parameter_of_an_unsupported_type_is_reported(sql: Session, folder: Path) -> None:
    file = folder / "tasks" / "title.sql"
    file.write_text("-- A sum.\n-- returns: value\n-- params: one numeric\nselect $1 > 1.5 as more;", encoding="utf-8")
    (found,) = await check(sql, folder=folder, stub_path=folder / "queries.pyi")
    assert found == f"{file}:3: params: numeric is a type that stub.PYTHON lacks: cast it to another, or add it there"


async def test_every_mistake_is_reported_and_the_stub_is_kept_until_all_are_fixed(
    sql: Session, folder: Path, tmp_path: Path
) -> None:
    (folder / "tasks" / "title.sql").write_text(GOOD.replace("t.weather", "t.w").replace("tasks_pkey", "x"), "utf-8")
    (folder / "tasks" / "other.sql").write_text(GOOD.replace("row?", "x"), "utf-8")
    (folder / "tasks" / "third.sql").write_text(GOOD.replace("tasks_pkey", "x").replace("-> invalid", "-> x"), "utf-8")
    found = await check(sql, folder=folder, stub_path=tmp_path / "queries.pyi", write=True)
    assert [line.removeprefix(f"{folder}/tasks/").split(":")[:2] for line in found] == [
        ["other.sql", "2"],
        ["third.sql", "4"],
        ["third.sql", "5"],
        ["title.sql", "10"],
    ]
    assert not (tmp_path / "queries.pyi").exists()


async def test_an_outdated_stub_is_reported_and_rewritten_on_request(
    sql: Session, folder: Path, tmp_path: Path
) -> None:
    stub = tmp_path / "queries.pyi"
    told = [f"{stub}:1: differs from the files and the schema: run `python -m service sql check --write`"]
    assert await check(sql, folder=folder, stub_path=stub) == told
    stub.write_text("stale")
    assert await check(sql, folder=folder, stub_path=stub) == told
    assert stub.read_text() == "stale"
    assert await check(sql, folder=folder, stub_path=stub, write=True) == []
    assert await check(sql, folder=folder, stub_path=stub) == []
    (folder / "tasks" / "title.sql").write_text(GOOD.replace("    t.version", "    t.city"))
    assert await check(sql, folder=folder, stub_path=stub) == told


async def test_the_stub_has_the_types_of_keywords_and_columns(sql: Session, folder: Path, tmp_path: Path) -> None:
    (folder / "tasks" / "titles.sql").write_text(SORTED, encoding="utf-8")
    (folder / "tasks" / "number.sql").write_text("-- All.\n-- returns: value\nselect count(*) from tasks;")
    (folder / "tasks" / "all.sql").write_text("-- All.\n-- returns: stream\nselect t.id from tasks as t;")
    (folder / "tasks" / "clear.sql").write_text("-- Clears.\n-- returns: count\ndelete from tasks;")
    stub = tmp_path / "queries.pyi"
    assert await check(sql, folder=folder, stub_path=stub, write=True) == []
    text = stub.read_text()
    assert "class TasksTitleRow(TypedDict):\n    title: str\n    weather: Fragment | None\n    version: int\n" in text
    assert "        task_id: int,\n        title: str | None,\n    ) -> TasksTitleRow | None: ...\n" in text
    assert '        sort: Literal["-title", "title", "-id", "id"],\n        after_value: str | None,\n' in text
    assert "    ) -> Sequence[TasksTitlesRow]: ...\n" in text
    assert (
        "def stream(\n        self,\n        db: Database,\n    ) -> AsyncGenerator[Sequence[TasksAllRow]]: ...\n"
        in text
    )
    assert "async def estimate(\n        self,\n        db: Executor,\n    ) -> int: ...\n" in text
    assert "async def number(\n        self,\n        db: Executor,\n    ) -> int: ...\n" in text
    assert "async def clear(\n        self,\n        db: Executor,\n    ) -> int: ...\n" in text
    assert text.splitlines()[0] == STUB.read_text(encoding="utf-8").splitlines()[0]


async def test_a_script_is_for_psql_and_not_prepared(sql: Session, folder: Path, tmp_path: Path) -> None:
    (folder / "dba").mkdir()
    (folder / "dba" / "two.sql").write_text("-- Two at once.\n-- returns: script\nselect 1;\nselect 2;")
    assert await check(sql, folder=folder, stub_path=tmp_path / "queries.pyi", write=True) == []
    assert "two" not in (tmp_path / "queries.pyi").read_text()


CALLED = [one.name for one in read_all() if one.header.returns != "script" and not one.header.extension]


@pytest.mark.parametrize("name", CALLED)
def test_every_statement_has_a_test_that_calls_it(name: str) -> None:
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*_statements.py")]
    assert any(re.search(rf"\bq\.{re.escape(name)}(\.stream)?\(", text) for text in tests)


async def test_unused_statements_and_unused_error_entries_are_reported(
    sql: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "callers", dict)
    told = await check(sql)
    assert f"{FOLDER}/tasks/get.sql:1: nothing in service/ runs it: call q.tasks.get, or remove the file" in told
    assert not [line for line in told if "/dba/" in line]
    monkeypatch.undo()
    monkeypatch.setitem(errors.CONSTRAINTS, "tasks_weather_check", errors.CONSTRAINTS["tasks_title_check"])
    monkeypatch.setattr(inspect, "getfile", lambda _: __file__)
    (line,) = await check(sql)
    assert re.match(rf"{__file__}:\d+: no statement raises tasks_weather_check: add it to the `raises`", line)
    assert await check(sql, write=True) == []
