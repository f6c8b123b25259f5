"""A rule that a DBA added to the schema refuses a value: the client is told so, and the operator which rule it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import pytest
from loguru import logger

from tests.support.factories import Factory
from tests.support.problems import problem

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
RULE = """
create function rule() returns trigger language plpgsql as $$ begin {body} end $$;
create trigger rule before insert or update or delete on {table} for each row execute function rule();
"""
REFUSES = RULE.format(body="raise exception 'no such titles here';", table="tasks")
DISCARDS = RULE.format(body="return null;", table="tasks")
TITLES = """
create table titles (title text collate "C" primary key);
alter table tasks add constraint known_title foreign key (title) references titles not valid;
"""
DISCARDS_SOME = RULE.format(body="if new.title = 'Two' then return null; end if; return new;", table="tasks")


@pytest.fixture
async def rules(sql: Session) -> AsyncIterator[Session]:
    """Yield a session whose rules are dropped at the end."""
    yield sql
    for table in ("tasks", "users", "attachments", "api_keys", "tickets", "idempotency_keys"):
        await sql.execute(f"drop trigger if exists rule on {table}")
    await sql.execute("drop function if exists rule()")
    await sql.execute("drop index if exists one_title; drop table if exists titles cascade")
    await sql.execute("alter table tasks drop constraint if exists short_title, drop constraint if exists known_title")


@pytest.fixture
async def rule_log() -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the bound fields of each warning of a refused value."""
    found: list[dict[str, Any]] = []

    def add(message: Any) -> None:
        if message.record["message"] == "value refused by the database":
            found.append(message.record["extra"])

    handler = logger.add(add, level="WARNING")
    yield found
    logger.remove(handler)


@pytest.mark.parametrize(
    ("rule", "status", "name"),
    [
        ("create unique index one_title on tasks (title) where title = 'Two'", 409, "one_title"),
        (
            TITLES,
            409,
            "known_title",
        ),
        ("alter table tasks add constraint short_title check (length(title) < 3) not valid", 422, "short_title"),
        (REFUSES, 422, "no such titles here"),
        (DISCARDS, 409, "a trigger returned null"),
    ],
    ids=["unique", "foreign key", "check", "raise", "null"],
)
async def test_a_rule_refuses_a_task(  # noqa: PLR0917
    make: Factory, rules: Session, rule_log: list[dict[str, Any]], rule: str, status: int, name: str
) -> None:
    ada = await make.user()
    await make.task(ada, title="Two")
    other = await make.task(ada, title="x")
    await rules.execute(rule)
    before = await rules.fetch("select * from tasks order by id")
    requests = [
        ("POST", "/tasks", {"title": "Two"}),
        ("POST", "/tasks/bulk", {"tasks": [{"title": "Two"}]}),
        ("PATCH", f"/tasks/{other}", {"title": "Two"}),
        ("PUT", f"/tasks/{other}", {"title": "Two"}),
    ]
    for method, path, body in requests:
        problem(await ada.client.request(method, path, json=body), status)
    assert await rules.fetch("select * from tasks order by id") == before
    assert [one["rule"] for one in rule_log] == [name] * 4


@pytest.mark.parametrize(("rule", "status"), [(REFUSES, 422), (DISCARDS, 409)], ids=["raise", "null"])
async def test_a_rule_refuses_a_deletion(make: Factory, rules: Session, rule: str, status: int) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await rules.execute(rule)
    problem(await ada.client.delete(f"/tasks/{task}"), status)
    assert (await ada.client.get(f"/tasks/{task}")).status_code == 200


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
async def test_a_bulk_request_of_which_a_trigger_discards_one_creates_none(
    make: Factory, rules: Session, key: dict[str, str]
) -> None:
    ada = await make.user()
    await rules.execute(DISCARDS_SOME)
    body = {"tasks": [{"title": "One"}, {"title": "Two"}]}
    problem(await ada.client.post("/tasks/bulk", json=body, headers=key), 409)
    assert await rules.fetchval("select count(*) from tasks") == 0


@pytest.mark.parametrize("rule", ["raise exception 'no';", "return null;"])
@pytest.mark.parametrize(
    ("table", "method", "path", "body"),
    [
        ("users", "POST", "/auth/register", {"username": "newcomer", "password": "correct horse battery"}),
        ("api_keys", "POST", "/auth/keys", {"name": "key"}),
        ("tickets", "POST", "/auth/ticket", None),
        ("users", "PATCH", "/users/{id}", {"active": False}),
        ("idempotency_keys", "POST", "/tasks", {"title": "x"}),
    ],
)
async def test_a_rule_refuses_a_row_of_any_table(  # noqa: PLR0917
    make: Factory, rules: Session, table: str, method: str, path: str, body: Any, rule: str
) -> None:
    ada = await make.admin()
    other = await make.user()
    await rules.execute(RULE.format(body=rule, table=table))
    headers = {"Idempotency-Key": "k"} if table == "idempotency_keys" else {}
    answer = await ada.client.request(method, path.format(id=other.id), json=body, headers=headers)
    problem(answer, 422 if "raise" in rule else 409)


@pytest.mark.parametrize(("rule", "status"), [("raise exception 'no';", 422), ("return null;", 409)])
async def test_a_rule_refuses_an_attachment(make: Factory, rules: Session, rule: str, status: int) -> None:
    ada = await make.user()
    task = await make.task(ada)
    await rules.execute(RULE.format(body=rule, table="attachments"))
    files = {"file": ("a.txt", b"x")}
    problem(await ada.client.post(f"/tasks/{task}/attachments", files=files), status)
