"""The workbench on the command line: what each tool prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest

from service.dba import catalog, plans
from tests.support.postgresql import measuring
from tests.support.servers import command, environment, refusal, run

NOWHERE = "postgresql://tasks:hunter2@127.0.0.1:1/tasks"


@pytest.fixture
def task(own_database_url: str) -> int:
    """A database with one task."""
    with psycopg.connect(own_database_url) as connection:
        connection.execute("insert into users (username, password_hash) values ('Ada', '')")
        connection.execute("insert into tasks (user_id, title) select id, 'One' from users")
        (task,) = connection.execute("select id from tasks").fetchone() or (0,)
    return int(task)


def test_the_catalogue_is_printed_as_text_or_json(tmp_path: Path, own_database_url: str) -> None:
    text = run(tmp_path, "sql", "catalog", DATABASE_URL=own_database_url)
    assert (text.returncode, text.stderr, text.stdout) == (0, "", catalog.FILE.read_text(encoding="utf-8"))
    listed = run(tmp_path, "sql", "catalog", "--format", "json", DATABASE_URL=own_database_url)
    assert {"tasks.get", "dba.locks"} <= {one["name"] for one in json.loads(listed.stdout)}


def test_a_plan_is_printed(tmp_path: Path, own_database_url: str, task: int) -> None:
    def explain(*arguments: str) -> str:
        ended = run(tmp_path, "sql", "explain", *arguments, DATABASE_URL=own_database_url)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    assert explain("tasks.list -title").startswith("tasks.list -title\n")
    lines = explain("tasks.list", "title").splitlines()
    assert lines[:2] == ["tasks.list title", "sql/tasks/list.sql"]
    assert lines[2:4] == ["List a page of the tasks that the viewer may see.", ""]
    assert "$1" in explain("tasks.get")
    values = ["--params", json.dumps([task, 1, True])]
    assert f"(id = '{task}'::bigint)" in explain("tasks.get", *values)
    assert "$1" in explain("tasks.get", *values, "--generic")
    assert "Execution Time" in explain("tasks.get", *values, "--analyze")
    assert "Execution Time" in explain("accounts.has_admin", "--analyze")
    assert json.loads(explain("tasks.get", "--json"))["Plan"]["Relation Name"] == "tasks"


def test_an_analyzed_statement_changes_nothing(tmp_path: Path, own_database_url: str, task: int) -> None:
    values = json.dumps([task, 1, True, None])
    arguments = ["sql", "explain", "tasks.delete", "--params", values, "--analyze"]
    ended = run(tmp_path, *arguments, DATABASE_URL=own_database_url)
    assert ended.returncode == 0, ended
    assert "Delete on tasks" in ended.stdout
    with psycopg.connect(own_database_url) as connection:
        assert connection.execute("select version from tasks").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tasks.gets"], "is it tasks.get"),
        (["tasks.get", "--params", "{"], "takes a JSON object or array"),
        (["tasks.get", "--params", '["x", 1, true]'], 'invalid input syntax for type bigint: "x"'),
        (["tasks.get", "--analyze"], "--analyze takes --params: task_id bigint, viewer_id bigint"),
        (
            ["tasks.get", "--params", '{"task_id": "\udcff", "viewer_id": 1, "viewer_is_admin": true}'],
            "task_id takes no",
        ),
        (["dba.roles"], "is a script for psql"),
        (["dba.statements"], "pg_stat_statements"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, own_database_url: str, arguments: list[str], says: str
) -> None:
    assert says in refusal(run(tmp_path, "sql", "explain", *arguments, DATABASE_URL=own_database_url))


def test_missing_statistics_are_reported_in_one_line(tmp_path: Path, own_database_url: str) -> None:
    message = refusal(run(tmp_path, "sql", "top", DATABASE_URL=own_database_url))
    assert "create extension pg_stat_statements" in message
    for tool in ("top", "catalog", "check", "plans"):
        assert (
            "unavailable" in (message := refusal(run(tmp_path, "sql", tool, DATABASE_URL=NOWHERE)))
            or "scratch" in message
        )
        assert "hunter2" not in message


def test_missing_privileges_are_reported_in_one_line(tmp_path: Path, own_database_url: str) -> None:
    """The role is made for this test; it may read the list of migrations and nothing else."""
    role = f"guest_{uuid4().hex}"
    with psycopg.connect(own_database_url, autocommit=True) as connection:
        connection.execute(f"create role {role} login password '{role}'")
        try:
            connection.execute(f"grant select on _yoyo_migration to {role}")
            connection.execute(f"alter role {role} set default_transaction_read_only = on")
            parts = urlsplit(own_database_url)
            url = urlunsplit(parts._replace(netloc=f"{role}:{role}@{parts.netloc.rpartition('@')[2]}"))
            arguments = {"catalog": [], "explain": ["tasks.get"], "plans": ["--rows", "30000"]}
            for tool, more in arguments.items():
                ended = subprocess.run(
                    command("sql", tool, *more),
                    env=environment(DATABASE_URL=url),
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert "permission denied" in refusal(ended) or "read-only" in ended.stderr
        finally:
            connection.execute(f"drop owned by {role}")
            connection.execute(f"drop role {role}")


def test_plans_require_a_minimum_number_of_rows(tmp_path: Path, own_database_url: str) -> None:
    assert "takes 20000 to 100000000" in refusal(
        run(tmp_path, "sql", "plans", "--rows", "10", DATABASE_URL=own_database_url)
    )


def test_a_tool_called_with_wrong_arguments_prints_the_usage(tmp_path: Path, own_database_url: str) -> None:
    wrong = ["top --by colour", "explain", "explain tasks.list title x", "catalog --format xml", "plans --rows x"]
    for arguments in map(str.split, wrong):
        ended = run(tmp_path, "sql", *arguments, DATABASE_URL=own_database_url)
        assert (ended.returncode, ended.stdout) == (2, "")


def test_every_plan_is_checked_in_a_scratch_database(tmp_path: Path, own_database_url: str) -> None:
    ended = subprocess.run(
        command("sql", "plans", "--rows", "40000"),
        env=environment(DATABASE_URL=own_database_url),  # not as the service's role, which may make no database
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "every plan matches its header\n"), ended.stderr
    assert ended.stderr.splitlines() == [one.name for one in plans.planned_statements()]
    with psycopg.connect(own_database_url) as connection:
        assert connection.execute("select count(*) from tasks").fetchall() == [(0,)]


def test_statistics_are_printed_in_the_order_requested(tmp_path: Path) -> None:
    with measuring() as url:
        with psycopg.connect(url) as connection:
            for _ in range(3):
                connection.execute("select /* tasks.get */ 1")
            connection.execute("select /* tasks.list title */ n from generate_series(1, 9) as n")
        calls = run(tmp_path, "sql", "top", "--by", "calls", "--limit", "1", DATABASE_URL=url)
        assert (calls.returncode, calls.stderr) == (0, "")
        head, line = calls.stdout.splitlines()
        assert head.split()[:2] == ["statement", "calls"]
        assert line.split()[:2] == ["tasks.get", "3"]
        rows = run(tmp_path, "sql", "top", "--by", "rows", "--json", DATABASE_URL=url)
        names = [one["name"] for one in json.loads(rows.stdout)]
        assert (names[0], "tasks.get" in names) == ("tasks.list title", True)
