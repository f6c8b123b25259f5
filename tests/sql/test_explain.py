"""`sql explain`: a statement's plan with values and without, and that nothing of it stays."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import asyncpg
import pytest

from service.core.errors import NotFoundError, StartError
from service.db.statements import Statement, read_all
from service.dba.explain import explain, find, nodes, parse_values
from tests.sql.conftest import Sessions

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
HOSTILE = "'); drop table tasks; --"


def get(name: str = "tasks.get") -> Statement:
    return find(name)[0]


@pytest.fixture
async def ada(sql: Session) -> int:
    """An account with one task."""
    user: int = await sql.fetchval("insert into users (username, password_hash) values ('Ada', '') returning id")
    await sql.execute("insert into tasks (user_id, title) values ($1, 'One')", user)
    return user


def test_a_name_is_that_of_a_file_and_of_one_of_its_sorts() -> None:
    assert find("tasks.list title")[1] == "title"
    assert find(" tasks.list   -title ")[1] == "-title"
    assert find("tasks.list")[1] == "-created_at"
    assert find("tasks.get")[1] == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tasks.gets", "is it tasks.get"),
        ("tasks.list colour", "it has -created_at, created_at"),
        ("tasks.get title", "has no sort 'title'; it has none"),
        ("tasks/get.sql", "no statement 'tasks/get.sql'"),
        ("../../etc/passwd", "no statement"),
        ("", "no statement ''"),
        ("x" * 100_000, "no statement 'xxx"),
        (HOSTILE, "no statement"),
        ("tasks.get\0", "no statement"),
    ],
)
def test_an_unknown_name_is_refused_with_similar_names(name: str, says: str) -> None:
    with pytest.raises(NotFoundError, match=r"statement|sort") as refused:
        find(name)
    assert says in refused.value.detail
    assert len(refused.value.detail) < 400


@pytest.mark.parametrize(
    ("values_text", "says"),
    [
        ("{", "takes a JSON object or array"),
        ("[" * 100_000, "takes a JSON object or array"),
        ('"x"', "takes a JSON object or array"),
        ('["\\u0000", 1, true]', "task_id takes no NUL and no lone surrogate"),
        ('["\\ud800", 1, true]', "task_id takes no NUL and no lone surrogate"),
        ("[1]", "takes 3 values and got 1: task_id bigint, viewer_id bigint, viewer_is_admin boolean"),
        ('{"task_id": 1, "colour": 2}', "has no colour"),
        ('{"task_id": 1, "viewer_id": 1}', "viewer_is_admin takes a value of type boolean"),
        ('{"task_id": 1, "viewer_id": null, "viewer_is_admin": true}', "viewer_id takes a value of type bigint"),
    ],
)
def test_values_that_are_not_the_statements_are_refused(values_text: str, says: str) -> None:
    with pytest.raises(StartError) as refused:
        parse_values(get(), values_text)
    assert says in refused.value.detail


def test_values_are_read_by_name_or_position() -> None:
    by_name = parse_values(get(), '{"task_id": 1, "viewer_id": "2", "viewer_is_admin": true}')
    assert (
        by_name
        == parse_values(get(), '[1, "2", true]')
        == {"task_id": "1", "viewer_id": "2", "viewer_is_admin": "true"}
    )


def test_arrays_and_json_are_written_as_the_server_reads_them() -> None:
    values = parse_values(
        get("tasks.create_many"),
        json.dumps([1, ['a"b\\c', "{x}"], [None, "NULL"], [], [""], [{"temperature": 1.5}, None]]),
    )
    assert values["titles"] == r'{"a\"b\\c","{x}"}'
    assert values["descriptions"] == '{NULL,"NULL"}'
    assert values["weathers"] == r'{"{\"temperature\": 1.5}",NULL}'
    with pytest.raises(StartError, match="takes a JSON array of text"):
        parse_values(get("tasks.create_many"), json.dumps([1, "x", [], [], [], []]))


@pytest.mark.parametrize(
    "statement",
    [one for one in read_all() if one.header.returns != "script" and not one.header.extension],
    ids=lambda one: one.name,
)
async def test_every_statement_has_a_generic_plan(sql: Session, statement: Statement) -> None:
    for sort in statement.texts:
        lines = await explain(sql, statement, sort)
        assert "cost=" in lines[0]
    assert await sql.fetchval("select count(*) from pg_prepared_statements where name = 'workbench'") == 0


async def test_with_values_it_is_the_plan_for_them(sql: Session, ada: int) -> None:
    statement = get("tasks.list")
    values = {one.name: None for one in statement.header.params} | {
        "viewer_id": str(ada),
        "viewer_is_admin": "false",
        "row_limit": "5",
        "row_offset": "0",
    }
    custom = "\n".join(await explain(sql, statement, "title", values))
    assert f"user_id = '{ada}'::bigint" in custom
    assert "$3" not in custom
    assert "$3" in "\n".join(await explain(sql, statement, "title", values, generic=True))
    assert "$3" in "\n".join(await explain(sql, statement, "title"))


async def test_as_json_it_has_nodes(sql: Session) -> None:
    plan: Any = await explain(sql, get(), form="json")
    assert "tasks" in {node.get("Relation Name") for node in nodes(plan)}


async def test_an_analyzed_statement_is_rolled_back(sql: Session, ada: int, session: Sessions) -> None:
    listener = await session()
    heard: list[Any] = []
    await listener.add_listener("task_events", lambda *notification: heard.append(notification))
    await sql.execute("select pg_notify('task_events', 'first')")
    before = await sql.fetchrow("select (select max(id) from task_events) as event, t.* from tasks as t")
    task = await sql.fetchval("select id from tasks")
    for name, values_text in (
        ("tasks.delete", [task, ada, True, None]),
        ("tasks.create", [ada, "Two", None, "todo", None, None]),
        ("accounts.set_password", [ada, "x", "", None]),
    ):
        lines = await explain(sql, get(name), "", parse_values(get(name), json.dumps(values_text)), analyze=True)
        assert any("actual time" in line for line in lines)
        assert any(line.startswith("Execution Time") for line in lines)
    assert await sql.fetchrow("select (select max(id) from task_events) as event, t.* from tasks as t") == before
    assert await sql.fetchval("select password_hash from users") == ""
    assert await sql.fetchval("select current_setting('service.actor_id', true)") in {"", None}
    await sql.execute("select pg_notify('task_events', 'last')")
    while not heard or heard[-1][3] != "last":
        await listener.execute("select 1")
    assert [notification[3] for notification in heard] == ["first", "last"]


@pytest.mark.parametrize("name", ["accounts.credentials", "tasks.count_search", "tasks.search"])
@pytest.mark.parametrize("value", [HOSTILE, "", "\\", "$1", "x" * 1_000_000, "'); select pg_sleep(10); --"])
async def test_a_value_is_never_part_of_the_statement(sql: Session, ada: int, name: str, value: str) -> None:
    statement = get(name)
    values = {one.name: value if one.type == "text" else None for one in statement.header.params}
    values |= {"row_limit": "1", "row_offset": "0", "viewer_id": "1", "viewer_is_admin": "true", "after_value": None}
    named_values = {one.name: values[one.name] for one in statement.header.params}
    for generic in (False, True):
        assert await explain(sql, statement, "", named_values, generic=generic, analyze=True)
    assert await sql.fetchval("select count(*) from tasks") == 1


@pytest.mark.parametrize(
    ("values_text", "says"),
    [
        ("[9223372036854775808, 1, true]", "out of range for type bigint"),
        ('["x", 1, true]', 'invalid input syntax for type bigint: "x"'),
        ('["", 1, true]', 'invalid input syntax for type bigint: ""'),
        ("[1.5, 1, true]", 'invalid input syntax for type bigint: "1.5"'),
        ("[1e999, 1, true]", "bigint"),
        ('[{"a": [1]}, 1, true]', "bigint"),
    ],
)
async def test_a_value_of_the_wrong_type_is_reported_in_one_line(sql: Session, values_text: str, says: str) -> None:
    with pytest.raises(StartError) as refused:
        await explain(sql, get(), "", parse_values(get(), values_text))
    assert says in refused.value.detail
    assert "\n" not in refused.value.detail
    assert await explain(sql, get(), "", parse_values(get(), "[1, 1, true]"))


async def test_a_statement_that_takes_too_long_is_cancelled_and_rolled_back(sql: Session, ada: int) -> None:
    await sql.execute("set statement_timeout = '50ms'")
    try:
        statement = get("tasks.lock_restoration")
        slow = Statement(
            statement.name, statement.path, statement.header, 1, {"": "select pg_sleep(10)::text as turn where $1 > 0"}
        )
        with pytest.raises(StartError, match="statement timeout"):
            await explain(sql, slow, "", {"task_id": "1"}, analyze=True)
        assert await explain(sql, statement, "", {"task_id": "1"}, analyze=True)
    finally:
        await sql.execute("reset statement_timeout")


async def test_two_statements_in_one_file_are_not_run(sql: Session, ada: int) -> None:
    one = get()
    two = Statement(one.name, one.path, one.header, 1, {"": f"{one.texts['']}; delete from tasks"})
    with pytest.raises(StartError, match="cannot insert multiple commands into a prepared statement"):
        await explain(sql, two, "", parse_values(one, "[1, 1, true]"), analyze=True)
    assert await sql.fetchval("select count(*) from tasks") == 1
