"""`python -m service demo`: fills an empty database, whole or not at all, and tells how to log in."""

from __future__ import annotations

import os
import re
import subprocess
import termios
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from service.cli import demo
from tests.conftest import as_service
from tests.support.servers import command, environment, refusal, run, serving

NUMBERS = "select (select count(*) from users), (select count(*) from tasks), (select count(*) from task_events)"


def ask(url: str, query: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as db:
        return db.execute(query).fetchall()


def test_demo_fills_an_empty_database_with_accounts_that_can_log_in(tmp_path: Path, own_database_url: str) -> None:
    ended = run(tmp_path, "demo", "--tasks", "1200", DATABASE_URL=own_database_url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1200 tasks created for 11 users: alan, ")
    password = ended.stdout.split()[-1]
    assert ask(own_database_url, NUMBERS) == [(12, 1200, 1200)]
    with serving(tmp_path, DATABASE_URL=own_database_url) as server:
        for name in (demo.ADMINISTRATOR, *demo.USERS[:2]):
            with server.client() as http:
                session = http.post("/auth/login", json={"username": name, "password": password}).raise_for_status()
            with server.client(session.json()["access_token"]) as http:
                page = http.get("/tasks", params={"count": "exact", "q": "invoice"}).raise_for_status().json()
                total = http.get("/tasks", params={"count": "exact"}).json()["total"]
            assert 0 < page["total"] < total
            assert (total == 1200) == (name == demo.ADMINISTRATOR)


def test_demo_tasks_are_spread_over_the_past(tmp_path: Path, own_database_url: str) -> None:
    run(tmp_path, "demo", "--tasks", "1000", DATABASE_URL=own_database_url).check_returncode()
    ((days, statuses, later, future, out_of_order, with_city),) = ask(
        own_database_url,
        """
        select
            count(distinct created_at::date),
            array_agg(distinct status order by status),
            count(*) filter (where completed_at > created_at),
            count(*) filter (where greatest(created_at, updated_at, completed_at) > now()),
            (select count(*) from tasks as a join tasks as b on a.id = b.id - 1 where a.created_at > b.created_at),
            count(city)
        from tasks
        """,
    )
    assert days > 300
    assert statuses == ["done", "in_progress", "todo"]
    assert later > 500
    assert (future, out_of_order) == (0, 0)
    assert 0 < with_city < 1000


@pytest.mark.parametrize(
    "there",
    [
        "insert into users (username, password_hash) values ('heidi', 'x')",
        """
        insert into users (username, password_hash, role) values ('root', 'x', 'admin');
        insert into tasks (user_id, title) select id, 'x' from users
        """,
    ],
)
def test_a_database_that_is_not_empty_is_left_alone(
    tmp_path: Path, own_database_url: str, there: LiteralString
) -> None:
    with psycopg.connect(own_database_url) as db:
        db.execute(there)
    before = ask(own_database_url, NUMBERS)
    assert "users or tasks already" in refusal(run(tmp_path, "demo", DATABASE_URL=own_database_url))
    assert ask(own_database_url, NUMBERS) == before


def test_an_administrator_may_be_there_already(tmp_path: Path, own_database_url: str) -> None:
    with psycopg.connect(own_database_url) as db:
        db.execute("insert into users (username, password_hash, role) values ('root', 'x', 'admin')")
    run(tmp_path, "demo", "--tasks", "1", DATABASE_URL=own_database_url).check_returncode()
    assert ask(own_database_url, NUMBERS) == [(13, 1, 1)]


def test_a_failed_demo_leaves_nothing(tmp_path: Path, own_database_url: str) -> None:
    with psycopg.connect(own_database_url) as db:
        db.execute(f"alter table tasks add constraint few check (id <= {demo.BATCH})")
    assert refusal(run(tmp_path, "demo", DATABASE_URL=own_database_url))
    assert ask(own_database_url, NUMBERS) == [(0, 0, 0)]


def test_too_many_demo_tasks_are_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, "demo", "--tasks", "100001", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "takes at most 100000 and got 100001" in ended.stderr


def test_a_terminal_shows_how_far_it_is(tmp_path: Path, own_database_url: str) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    ended = subprocess.run(
        command("demo", "--tasks", "1500"),
        cwd=tmp_path,
        env=environment(DATABASE_URL=as_service(own_database_url)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    shown = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert re.search(r"\d+%\|.*\| \d+/1500 ", shown)
    assert b"%|" not in ended.stdout


def test_the_names_of_the_readme_stay_free() -> None:
    readme = Path("README.md").read_text()
    named = set(re.findall(r'"username": "([^"]+)"|create-admin ([a-z]+)', readme))
    assert len(named) > 1
    assert not {name for pair in named for name in pair} & {demo.ADMINISTRATOR, *demo.USERS}
