"""Data that a dump brings into a migrated database: by the guide's commands, and table by table."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.db import embedded
from service.db.statements import FOLDER
from tests.conftest import TEMPLATE, _database

TABLES = """
    select tablename from pg_tables where schemaname = 'public' and tablename !~ 'yoyo' order by tablename
"""
FILE = "repeat('a', 32) || '/' || repeat('b', 32), 'a.txt', 'text/plain', 1, repeat('c', 64)"
HISTORY = f"""
    insert into users (username, password_hash, role) values ('ada', '', 'admin'), ('bob', '', 'user');
    insert into sessions (user_id, expires_at, secret, refresh_hash) select id, now(), 's', username::bytea from users;
    insert into api_keys (user_id, name, hash) select id, 'key', username::bytea from users;
    insert into tickets (hash, user_id) select 'x', min(id) from users;
    insert into idempotency_keys (user_id, route, key, fingerprint, holder, claimed_until)
        select id, 'POST /tasks', 'k', '', '', now() from users;
    insert into tasks (user_id, title, status)
        select u.id, 'Task ' || n, 'done' from users as u, generate_series(1, 3) as n;
    update tasks set title = title || '!';
    insert into attachments (task_id, added_by, key, filename, content_type, size, sha256)
        select min(t.id), min(t.user_id), {FILE} from tasks as t;
    insert into attachments (task_id, key, filename, content_type, size, sha256)
        select max(t.id), {FILE.replace("'b'", "'d'")} from tasks as t;
    delete from tasks where id = (select max(id) from tasks);
    update task_event_horizon set expired_id = 1
"""


@pytest.fixture
def source_url() -> Iterator[str]:
    """A database that has been in use: no table is empty."""
    with _database(os.environ[TEMPLATE]) as url:
        rows(url, HISTORY)
        assert all(content(url).values())
        yield url


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(url, f"select t::text from {name} as t order by 1") for (name,) in rows(url, TABLES)}


def shell(folder: Path, commands: str, *, source: str, target: str) -> None:
    """Run commands as a superuser types them, with the programs of the tests' own PostgreSQL first."""
    programs = embedded._Cluster.at(Path("/")).programs
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    ended = subprocess.run(
        ["/bin/sh", "-euc", commands],
        cwd=folder,
        env={**kept, "PATH": f"{programs}:{os.environ['PATH']}", "SOURCE": source, "TARGET": target},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def guide() -> str:
    text = (FOLDER.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(pg_dump [^`]*--data-only[^`]*)```", text)
    assert found
    return found[1]


def test_the_guides_commands_bring_all_data_into_a_migrated_database(
    tmp_path: Path, source_url: str, own_database_url: str
) -> None:
    shell(tmp_path, guide(), source=source_url, target=own_database_url)
    assert content(own_database_url) == content(source_url)
    # Both go on alike: ids, versions and events.
    change = "insert into tasks (user_id, title) select min(id), 'later' from users; update tasks set city = 'Oslo'"
    events = "select id, type, task_id, task ->> 'version' from task_events order by id"
    for url in (source_url, own_database_url):
        rows(url, change)
    assert rows(own_database_url, events) == rows(source_url, events)


def test_some_tables_go_in_by_psql_and_each_task_has_its_event(
    tmp_path: Path, source_url: str, own_database_url: str
) -> None:
    commands = 'pg_dump --data-only -t users -t tasks "$SOURCE" | psql -X -q -o /dev/null -v ON_ERROR_STOP=1 "$TARGET"'
    shell(tmp_path, commands, source=source_url, target=own_database_url)
    there = content(own_database_url)
    assert {name: there[name] for name in ("users", "tasks")} == {
        name: rows for name, rows in content(source_url).items() if name in {"users", "tasks"}
    }
    created = rows(own_database_url, "select e.type, e.task ->> 'title' from task_events as e order by e.task_id")
    assert created == rows(source_url, "select 'task.created', t.title from tasks as t order by t.id")


def test_pg_restore_loads_all_tables_but_those_of_one_row_with_their_triggers(
    tmp_path: Path, source_url: str, own_database_url: str
) -> None:
    """What comes without attachments and events makes its own."""
    left_out = " ".join(
        f"-T {name}" for name in ("'*yoyo*'", "attachment_store", "task_event*", "task_search", "*attachments")
    )
    commands = f"""
        pg_dump -Fc --data-only {left_out} -f tasks.dump "$SOURCE"
        pg_restore --data-only --exit-on-error -d "$TARGET" tasks.dump
    """
    shell(tmp_path, commands, source=source_url, target=own_database_url)
    there, before = content(own_database_url), content(source_url)
    for name in ("users", "tasks", "sessions", "api_keys", "tickets", "idempotency_keys"):
        assert there[name] == before[name]
    assert rows(own_database_url, "select count(*) from task_events where type = 'task.created'") == [
        (len(before["tasks"]),)
    ]
