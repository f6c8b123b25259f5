"""The command line, run as a process: what each command prints, and 0, 1 with one line, or 2 at its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest

from service.app import create_app
from service.core import settings
from service.core.errors import StartError
from service.db import migrations
from tests.conftest import make_settings
from tests.support.servers import ROOT, command, environment, refusal, run

NOWHERE = "postgresql://tasks:hunter2@127.0.0.1:1/tasks"
PASSWORD = "correct horse battery staple"
TOOLS = ["sql check", "sql catalog", "sql explain", "sql plans", "sql top"]
COMMANDS = ["", "serve", "migrate", "create-admin", "demo", "sql", *TOOLS, "openapi"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_with_any_settings(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, *name.split(), "--help", PORT="nonsense")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: python -m service {name}".rstrip())


def test_the_command_line_imports_nothing_that_help_does_not_need(tmp_path: Path) -> None:
    """Importing these takes a second, in every command."""
    script = "import sys, service.cli; print(sys.modules.keys() & {'fastapi', 'pydantic', 'asyncpg', 'yoyo', 'loguru'})"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.stdout == "set()\n", ended.stderr


@pytest.mark.parametrize("words", ["dance", "sql", "migrate --rollback 0"])
def test_a_wrong_call_gets_the_usage(tmp_path: Path, words: str) -> None:
    ended = run(tmp_path, *words.split(), DATABASE_URL=NOWHERE)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: python -m service")


@pytest.mark.parametrize("number", ["0", "-1", "two", "9" * 5000])
def test_an_invalid_number_of_migrations_is_reported(tmp_path: Path, number: str) -> None:
    ended = run(tmp_path, "migrate", f"--rollback={number}", DATABASE_URL=NOWHERE)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"argument --rollback: takes a number from 1 up and got {number[:20]!r}\n" in ended.stderr


def test_migrations_go_up_and_down(tmp_path: Path, empty_database_url: str) -> None:
    def migrate(*arguments: str) -> list[str]:
        ended = run(tmp_path, "migrate", *arguments, DATABASE_URL=empty_database_url)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.splitlines()

    first, *others = migrations.release_ids()
    pending = [f"pending  {name}" for name in others]
    assert migrate("--status") == [f"pending  {first}", *pending]
    assert migrate("--to", first) == [f"applied  {first}"]
    assert migrate("--status") == [f"applied  {first}", *pending]
    assert migrate() == [f"applied  {name}" for name in others]
    assert migrate() == ["nothing to apply"]
    assert migrate("--rollback", "2") == [f"rolled back  {name}" for name in [first, *others][:-3:-1]]


def test_a_failed_migration_reports_why(tmp_path: Path, own_database_url: str) -> None:
    assert "'9999'" in refusal(run(tmp_path, "migrate", "--to", "9999", DATABASE_URL=own_database_url))
    assert "cannot roll back 99" in refusal(run(tmp_path, "migrate", "--rollback", "99", DATABASE_URL=own_database_url))
    line = refusal(run(tmp_path, "migrate", DATABASE_URL=NOWHERE))
    assert "127.0.0.1" in line
    assert "hunter2" not in line


async def test_a_made_administrator_can_log_in(tmp_path: Path, own_database_url: str) -> None:
    made = run(
        tmp_path, "create-admin", "Ada", "--password-stdin", stdin_text=f"{PASSWORD}\n", DATABASE_URL=own_database_url
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.endswith("administrator Ada created, id 1\n")
    assert PASSWORD not in made.stdout
    app = create_app(make_settings(own_database_url))
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        token = (await http.post("/auth/login", json={"username": "ada", "password": PASSWORD})).json()["access_token"]
        me = await http.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert (me.json()["username"], me.json()["role"]) == ("Ada", "admin")


def test_an_administrator_that_cannot_be_made_is_refused(tmp_path: Path, own_database_url: str) -> None:
    def create(name: str, password: str, url: str = own_database_url) -> str:
        ended = run(tmp_path, "create-admin", name, "--password-stdin", stdin_text=password, DATABASE_URL=url)
        assert password not in ended.stdout + ended.stderr
        return refusal(ended)

    with psycopg.connect(own_database_url) as db:
        db.execute("insert into users (username, password_hash) values ('Ada', 'x')")
    assert "'ada' is taken" in create("ada", PASSWORD)
    assert "'a b' is no username" in create("a b", PASSWORD)
    assert "8 to 256 characters" in create("grace", "hunter2")
    assert "unavailable" in create("grace", PASSWORD, NOWHERE)
    with psycopg.connect(own_database_url) as db:
        assert db.execute("select username, role from users").fetchall() == [("Ada", "user")]


def ask_on_a_terminal(folder: Path, *answers: str, **values: str) -> tuple[int, str]:
    """Type an answer at each prompt of `create-admin ada`; return the exit code and the terminal output."""
    ours, theirs = os.openpty()
    arguments = command("create-admin", "ada")
    # A session of its own has no terminal but this one: the developer's is not asked.
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment(**values),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = ""
        for answer in answers:
            while not shown.endswith(": "):
                shown += os.read(ours, 1000).decode()
            shown += "\n"
            os.write(ours, f"{answer}\n".encode())
        try:
            while more := os.read(ours, 1000):
                shown += more.decode()
        except OSError:  # Linux's way to say that the other side is closed
            pass
        os.close(ours)
    return process.returncode, shown


def test_a_password_is_asked_for_twice_and_not_shown(tmp_path: Path, own_database_url: str) -> None:
    code, shown = ask_on_a_terminal(tmp_path, PASSWORD, PASSWORD, DATABASE_URL=own_database_url)
    assert code == 0, shown
    assert PASSWORD not in shown
    code, shown = ask_on_a_terminal(tmp_path, PASSWORD, "another password", DATABASE_URL=own_database_url)
    assert code == 1
    assert "error: the two passwords differ" in shown


def test_the_document_is_printed_without_a_database(tmp_path: Path) -> None:
    ended = run(tmp_path, "openapi", DATABASE_URL=NOWHERE)
    assert (ended.returncode, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    assert document["openapi"].startswith("3.")
    assert {"/tasks", "/auth/login", "/analytics", "/healthz"} <= document["paths"].keys()


@pytest.mark.parametrize("arguments", ["openapi", "sql catalog --format json", "sql explain tasks.get", "--help"])
def test_a_closed_output_pipe_ends_the_command_silently(tmp_path: Path, own_database_url: str, arguments: str) -> None:
    with subprocess.Popen(
        command(*arguments.split()),
        cwd=tmp_path,
        env=environment(DATABASE_URL=own_database_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_the_statements_are_checked_against_the_schema(tmp_path: Path, own_database_url: str) -> None:
    ended = run(tmp_path, "sql", "check", DATABASE_URL=own_database_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "every statement matches its header, the schema and the code\n",
        "",
    )
    with psycopg.connect(own_database_url) as db:
        db.execute("alter index tasks_pkey rename to tasks_other")
    ended = run(tmp_path, "sql", "check", DATABASE_URL=own_database_url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert all("tasks_pkey" in line for line in ended.stderr.splitlines()), ended


def test_an_outdated_schema_is_not_checked(tmp_path: Path, empty_database_url: str) -> None:
    migrations.migrate(empty_database_url, to=migrations.release_ids()[0])
    assert "python -m service migrate" in refusal(run(tmp_path, "sql", "check", DATABASE_URL=empty_database_url))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY=''"),
        ({"SECRET_KEY": "hunter2"}, "SECRET_KEY='***'"),
        ({"DATABASE_URL": "postgresql://tasks:hunter2@localhost:port/tasks"}, "DATABASE_URL='***'"),
        ({"PORT": "eighty"}, "PORT='eighty'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='LOUD'"),
        ({"LOG_FILE": "/"}, "LOG_FILE='/'"),
        ({"LOG_FILE": "file/app.log"}, "LOG_FILE='file/app.log'"),
        ({"ADMIN_USERNAME": "no name", "ADMIN_PASSWORD": "hunter2hunter2"}, "ADMIN_USERNAME='no name'"),
        ({"ADMIN_USERNAME": "admin", "ADMIN_PASSWORD": "hunter2"}, "ADMIN_PASSWORD='***': a password takes 8 to 256"),
        ({"HOST": "256.0.0.1"}, "HOST='256.0.0.1'"),
        ({"MIGRATE_ON_START": "true"}, "127.0.0.1"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(tmp_path: Path, values: dict[str, str], says: str) -> None:
    (tmp_path / "file").touch()
    line = refusal(run(tmp_path, **{"DATABASE_URL": NOWHERE, **values}))
    assert says in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    [
        "mysql://tasks:hunter2@localhost/tasks",
        "localhost/tasks?password=hunter2",
        "postgresql://tasks:hunter2@localhost:port/tasks",
        "postgresql://tasks:hunter2@[::1/tasks",
        "postgresql://tasks:hunter2/2@localhost/tasks",
        "postgresql://tasks:2/hunter2@localhost/tasks",
        "postgresql://tasks:hunter2#2@localhost/tasks",
    ],
)
def test_a_database_url_that_cannot_be_read_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(StartError, match=r"^DATABASE_URL='\*\*\*': takes postgresql://") as refused:
        settings.load()
    assert "hunter2" not in refused.value.detail


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_stops_the_start(tmp_path: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(tmp_path, DATABASE_URL=NOWHERE, PORT=port, WORKERS=workers)
    assert f"PORT={port}" in refusal(ended)
    assert "Traceback" not in ended.stdout


def test_a_command_runs_with_its_streams_closed(tmp_path: Path) -> None:
    script = 'exec "$0" -m service settings >&- 2>&- <&-'
    ended = subprocess.run(["sh", "-c", script, sys.executable], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0


def test_the_log_survives_the_reader_of_standard_output() -> None:
    program = (
        "from service.core.logs import _StandardOutput as Output; import sys; sys.stdin.read(); "
        "output = Output(); [output.write('x' * 100_000 + '\\n') for _ in range(3)]"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == "standard output has no reader: it is closed\n"
    assert process.returncode == 0
