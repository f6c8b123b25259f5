"""The commands and programs of README.md, docs/api.md and docs/events.md run from their text against the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from tests.support.servers import ROOT, WAIT_SECONDS, Server, serving, until

ADDRESS = "127.0.0.1:8000"
USER = {"username": "reader", "password": "correct horse battery staple"}
CODE = re.compile(r'"code":"(\w+)"')
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def server(tmp_path: Path, own_database_url: str) -> Iterator[Server]:
    """A service with a database of its own, whose first task is the reader's of the documents."""
    with serving(tmp_path, DATABASE_URL=own_database_url, RATE_LIMIT_PER_MINUTE="0") as server:
        until(lambda: server.status("/readyz") == 200)
        yield server


def blocks(document: str, language: str, containing: str = "") -> list[str]:
    """Return the fenced blocks of a document that are in a language and contain a text."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for found, body in FENCE.findall(text) if found == language and containing in body]


def at(server: Server, text: str) -> str:
    """Return a text of a document with the address of the server under test."""
    return text.replace(ADDRESS, urlsplit(server.url).netloc)


def token(server: Server) -> str:
    """Register the reader and return an access token."""
    with server.client() as http:
        assert http.post("/auth/register", json=USER).status_code == 201
        return str(http.post("/auth/login", json=USER).json()["access_token"])


def shell(folder: Path, script: str) -> str:
    """Run commands as `sh` does, stop at the first that fails, and return what they print."""
    ended = subprocess.run(
        ["sh", "-eu"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        input=script,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended
    return ended.stdout


def prepared(server: Server, commands: list[str]) -> str:
    """Return commands as a script with the variables `api` and `auth`, of a reader who has a task already."""
    header = f"Authorization: Bearer {token(server)}"
    with server.client() as http:
        http.post("/tasks", json={"title": "Earlier"}, headers={"Authorization": header.partition(": ")[2]})
    return "\n".join([f"api={server.url}", f"auth='{header}'", *commands])


def test_the_commands_of_the_readme_run(server: Server, tmp_path: Path) -> None:
    (commands,) = blocks("README.md", "sh", "/auth/register")

    printed = shell(tmp_path, at(server, commands))

    assert CODE.findall(printed) == []
    assert '"username":"ada"' in printed
    assert re.search(r'"title":"Prepare Report".*"status":"done".*"version":2', printed)
    assert '"by_status":{"todo" : 0, "in_progress" : 0, "done" : 1}' in printed
    assert "event: ready" in printed
    assert '"type":"task.updated"' in printed


def test_the_commands_of_the_api_document_run(server: Server, tmp_path: Path) -> None:
    commands = blocks("docs/api.md", "sh")
    assert len(commands) >= 6

    printed = shell(tmp_path, prepared(server, commands))

    assert CODE.findall(printed) == ["invalid", "stale"]
    for part in ('rel="next"', "idempotency-replayed: true", '"type":"task.restored"', '"completed":', "monthly data"):
        assert part in printed


def test_the_example_of_a_task_is_whole(server: Server) -> None:
    (example,) = [orjson.loads(one) for one in blocks("docs/api.md", "json", '"weather"')]
    with server.client(token(server)) as http:
        task = http.post("/tasks", json={"title": "whole"}).json()

    assert list(example) == list(task)


def test_the_example_of_an_event_is_whole(server: Server) -> None:
    (example,) = [orjson.loads(one) for one in blocks("docs/events.md", "json", '"changes"')]
    with server.client(token(server)) as http:
        cursor = http.get("/events").json()["cursor"]
        task = http.post("/tasks", json={"title": "whole"}).json()
        http.patch(f"/tasks/{task['id']}", json={"status": "done"})
        event = http.get("/events", params={"since": cursor}).json()["items"][-1]

    assert list(example) == list(event)
    assert list(example["task"]) == list(event["task"])


def test_the_polling_commands_run(server: Server, tmp_path: Path) -> None:
    (commands,) = blocks("docs/events.md", "sh")

    page = orjson.loads(shell(tmp_path, prepared(server, [commands])))

    assert [(one["type"], one["task"]["title"]) for one in page["items"]] == [("task.created", "Polled")]
    assert page["reset"] is False


@contextmanager
def subscriber(folder: Path, command: list[str], token: str) -> Iterator[Path]:
    """Run a program in a folder, and yield the file of what it prints; kill it at the end."""
    printed = folder / "printed"
    with printed.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "API_TOKEN": token},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield printed
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("language", ["python", "js"])
def test_a_subscriber_prints_each_event_once_and_resumes(server: Server, tmp_path: Path, language: str) -> None:
    interpreter = sys.executable if language == "python" else shutil.which("node")
    if interpreter is None:
        pytest.skip("needs node")
    (program,) = blocks("docs/events.md", language)
    folder = tmp_path / "subscriber"
    folder.mkdir()
    file = folder / f"subscriber.{'py' if language == 'python' else 'mjs'}"
    file.write_text(at(server, program))
    cursor = folder / "cursor.txt"
    access = token(server)

    with server.client(access) as http:

        def create(title: str) -> str:
            return f"task.created {http.post('/tasks', json={'title': title}).json()['id']} {title}"

        with subscriber(folder, [interpreter, str(file)], access) as printed:
            until(cursor.exists)  # `ready`
            expected = [create("live")]
            until(lambda: printed.read_text().splitlines() == expected and cursor.read_text())
        expected.append(create("missed"))
        with subscriber(folder, [interpreter, str(file)], access) as printed:
            until(lambda: len(printed.read_text().splitlines()) >= len(expected))
            expected.append(create("live again"))
            until(lambda: len(printed.read_text().splitlines()) >= len(expected))
        assert printed.read_text().splitlines() == expected

        cursor.write_text("unusable")
        with subscriber(folder, [interpreter, str(file)], access) as printed:
            until(lambda: printed.read_text().splitlines() == [*expected, "reset: read your lists again"])

        with subscriber(folder, [interpreter, str(file)], access) as printed:
            until(lambda: cursor.read_text() != "unusable")
            http.post("/auth/logout")
            until(lambda: "log in again" in printed.read_text())
