"""The real server over real sockets: how it starts, what it logs, what it withstands and how it stops."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from service.core import metrics
from service.db import embedded, migrations
from tests.conftest import SECRET_KEY
from tests.support.measurements import MetricSamples
from tests.support.servers import WITH_COVERAGE, Server, serving, starting, until

PASSWORD = "correct horse battery staple"
ADMIN = {"ADMIN_USERNAME": "root", "ADMIN_PASSWORD": PASSWORD}
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+0000 [A-Z]+ +[\w.-]+ [\w.]+: .+")
BODY = b"POST /auth/register HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Server]:
    """A server for what changes nothing in the database."""
    with serving(
        tmp_path_factory.mktemp("server"), WITH_COVERAGE, DATABASE_URL=database_url, LOG_LEVEL="TRACE"
    ) as server:
        yield server


def log_in(server: Server, username: str) -> httpx.Response:
    with server.client() as http:
        return http.post("/auth/login", json={"username": username, "password": PASSWORD})


def register(server: Server, username: str) -> str:
    """Make an account and return its token."""
    with server.client() as http:
        assert http.post("/auth/register", json={"username": username, "password": PASSWORD}).status_code == 201
    return str(log_in(server, username).json()["access_token"])


def waiting(db: psycopg.Connection[Any]) -> int:
    """How many statements wait for a lock in this database."""
    # Not pg_stat_activity, which stands still within a transaction.
    return len(
        db.execute(
            "select from pg_locks where not granted and relation in ('tasks'::regclass, 'users'::regclass)"
        ).fetchall()
    )


@pytest.mark.parametrize("applied", [0, 1])
def test_an_outdated_schema_is_logged_once_and_waited_for(
    tmp_path: Path, empty_database_url: str, applied: int
) -> None:
    for name in migrations.release_ids()[:applied]:
        migrations.migrate(empty_database_url, to=name)
    with serving(tmp_path, WITH_COVERAGE, DATABASE_URL=empty_database_url, **ADMIN) as server:
        assert [server.status("/healthz"), server.status("/readyz"), server.status("/healthz")] == [200, 503, 200]
        migrations.migrate(empty_database_url)
        until(lambda: " ready\n" in server.log())
        until(lambda: server.status("/readyz") == 200)
        assert log_in(server, "root").status_code == 200
        reasons = re.findall("service not ready reason=(.*) cause=", server.log())
        assert all("python -m service migrate" in line for line in reasons)
        assert 1 <= len(set(reasons)) == len(reasons) <= 2  # two where it is seen between two migrations


def test_a_start_migrates_if_configured(tmp_path: Path, empty_database_url: str) -> None:
    with serving(tmp_path, WITH_COVERAGE, DATABASE_URL=empty_database_url, MIGRATE_ON_START="true", **ADMIN) as server:
        until(lambda: server.status("/readyz") == 200)
        assert log_in(server, "root").status_code == 200
        assert "not ready" not in server.log()
        assert "embedded" not in server.log()
        names = migrations.release_ids()
        (line,) = [line for line in server.log().splitlines() if "migration" in line or "yoyo" in line]
        assert line.endswith(f": {len(names)} migrations applied first={names[0]} last={names[-1]}")


def test_two_workers_make_one_administrator_serve_and_stop(tmp_path: Path, own_database_url: str) -> None:
    values = {"WORKERS": "2", "DATABASE_STATEMENT_TIMEOUT_MS": "30000", **ADMIN}
    with psycopg.connect(own_database_url) as db:
        db.execute("lock table users in share row exclusive mode")
        with starting(tmp_path, WITH_COVERAGE, DATABASE_URL=own_database_url, **values) as server:
            until(lambda: waiting(db) == 2)
            db.rollback()
            until(lambda: server.log().count(" ready\n") == 2)
            assert server.log().count("first administrator created") == 1
            assert db.execute("select username, role from users").fetchall() == [("root", "admin")]
            db.rollback()
            assert log_in(server, "root").status_code == 200
            workers = psutil.Process(server.process.pid).children(recursive=True)
            assert len(workers) >= 2
            assert server.stop() == 0
            until(lambda: not [one for one in workers if one.is_running()])
            assert server.log().count("Finished server process") == 2  # no worker loses its last lines


def test_workers_end_with_their_parent_however_it_ends(tmp_path: Path, own_database_url: str) -> None:
    with serving(tmp_path, WITH_COVERAGE, DATABASE_URL=own_database_url, WORKERS="2") as server:
        until(lambda: server.log().count(" ready\n") == 2)
        workers = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        until(lambda: not [one for one in workers if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
        assert server.status("/healthz") == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_tells_who_did_what_and_no_secret(tmp_path: Path, own_database_url: str, form: str) -> None:
    values = {"LOG_FILE": "app.log", "LOG_FORMAT": form, "LOG_LEVEL": "TRACE"}
    with serving(tmp_path, WITH_COVERAGE, DATABASE_URL=own_database_url, **values) as server:
        token = register(server, "ada")
        with server.client(token) as http:
            http.headers.update({"X-Request-ID": "trip-1", "X-Forwarded-For": "203.0.113.9"})
            made = http.post("/tasks", json={"title": "{task_id} %s\nforged"}).json()
            path = f"/tasks/{made['id']}"
            assert http.patch(path, json={"status": "done"}).headers["X-Request-ID"] == "trip-1"
            assert http.get("/tasks", params={"city": "Atlantis"}).json()["items"] == []
            assert http.get("/tasks", params={"status": "done"}).json()["total"] is None
            assert http.get("/ws", params={"ticket": "Atlantis"}, headers=upgrade()).status_code == 101
            assert http.delete(path).status_code == 204
            assert "server" not in http.get("/healthz").headers
            wrong = {"username": "ada", "password": "Atlantis"}
            assert http.post("/auth/login", json=wrong).status_code == 401
            assert http.post("/auth/register", json=wrong | {"password": "hunter2"}).status_code == 422
            assert http.get("/auth/me", headers={"Authorization": "Bearer Atlantis"}).status_code == 401
        assert server.stop() == 0
        log = server.log()
    assert log == (tmp_path / "app.log").read_text()
    done = [parsed(line, form) for line in log.splitlines() if re.search("task (created|updated|deleted)", line)]
    assert done == [
        ("trip-1", f"task {what}", made["id"], made["user_id"]) for what in ("created", "updated", "deleted")
    ]
    assert {"uvicorn.error", "service.app", "service.tasks.operations"} <= {
        logger_of(line, form) for line in log.splitlines()
    }
    for secret in (
        PASSWORD,
        SECRET_KEY,
        token,
        token.rpartition(".")[2],
        "Atlantis",
        "hunter2",
        "203.0.113.9",
        "forged",
    ):
        assert secret not in log


def upgrade() -> dict[str, str]:
    """Return the headers of a WebSocket's first request."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }


def parsed(line: str, form: str) -> tuple[object, ...]:
    """Return the request, what was done, the task and who did it."""
    if form == "json":
        fields = orjson.loads(line)
        return fields["request_id"], fields["message"], fields["task_id"], fields["actor_id"]
    found = re.search(r" ([\w-]+) service\.tasks\.operations: ([a-z ]+) task_id=(\d+) actor_id=(\d+)", line)
    assert found, line
    return found[1], found[2], int(found[3]), int(found[4])


def logger_of(line: str, form: str) -> str:
    if form == "json":
        fields = orjson.loads(line)
        assert list(fields)[:5] == ["at", "level", "request_id", "logger", "message"]
        return str(fields["logger"])
    assert LINE.fullmatch(line), line
    return line.split()[3].removesuffix(":")


def conversation(server: Server, *parts: bytes) -> bytes:
    """Send all, as far as the server listens, and return all that it answers before it hangs up."""
    answer = b""
    with server.dial() as line:
        try:
            for part in parts:
                line.sendall(part)
            line.shutdown(socket.SHUT_WR)
            while more := line.recv(65536):
                answer += more
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer


def test_a_body_over_a_megabyte_is_refused_on_the_socket(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with server.dial() as line:
        line.sendall(BODY + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 16)
        assert line.recv(65536).startswith(b"HTTP/1.1 413 ")
    with server.dial() as line:
        line.sendall(BODY + b"Content-Length: 1000001\r\n\r\n")
        answer = line.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/problem+json\r\n" in answer.lower()
    until(lambda: server.status("/readyz") == 200)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
        b"\x00" * 4096,
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET //[ HTTP/1.1\r\nHost: test\r\n\r\n",
        b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nX: \x00\r\n\r\n",
        BODY + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BODY + b"Content-Length: -1\r\n\r\n",
        BODY + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        BODY + b"Content-Length: 100\r\n\r\n{",
    ],
)
def test_garbage_on_the_socket_does_no_harm(server: Server, garbage: bytes) -> None:
    log_length = len(server.log())
    answer = conversation(server, garbage)
    assert not answer or re.match(rb"HTTP/1.1 (400|404|405|431) ", answer)
    assert server.status("/healthz") == 200
    assert not re.search("Traceback|ERROR", server.log()[log_length:])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_completes_the_running_request_and_waits_for_no_idle_client(
    tmp_path: Path, own_database_url: str, how: signal.Signals
) -> None:
    with (
        psycopg.connect(own_database_url) as db,
        serving(tmp_path, WITH_COVERAGE, DATABASE_URL=own_database_url) as server,
        ThreadPoolExecutor(1) as thread,
        server.client() as idle,
        server.client(register(server, "ada")) as busy,
        server.dial(),
    ):
        assert idle.get("/healthz").status_code == 200
        db.execute("lock table tasks")
        running = thread.submit(busy.post, "/tasks", json={"title": "last"})
        until(lambda: waiting(db) == 1)
        server.process.send_signal(how)
        until(lambda: "Shutting down" in server.log())
        assert server.status("/healthz") == 0
        db.rollback()
        assert running.result().status_code == 201
        assert server.process.wait(10) == 0
        assert not re.search("Traceback|ERROR", server.log())


def test_a_client_that_disconnects_returns_its_connection_to_the_pool(tmp_path: Path, own_database_url: str) -> None:
    with (
        psycopg.connect(own_database_url) as db,
        serving(tmp_path, WITH_COVERAGE, DATABASE_URL=own_database_url, DATABASE_POOL_SIZE="1") as server,
        server.client(register(server, "ada")) as http,
    ):
        db.execute("lock table tasks")
        with pytest.raises(httpx.ReadTimeout):
            http.get("/tasks", timeout=0.5)
        until(lambda: waiting(db) == 1)
        db.rollback()
        assert http.get("/tasks").status_code == 200
        assert not re.search("Traceback|ERROR", server.log())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_the_embedded_database_comes_back_after_a_kill_and_stops_with_the_service(how: signal.Signals) -> None:
    # Not tmp_path: PostgreSQL, which does not run as root, may not reach what is in there.
    with tempfile.TemporaryDirectory() as path:
        folder, data = Path(path), Path(path, ".data")
        try:
            with serving(folder, WITH_COVERAGE, SECRET_KEY="") as server:
                (warning,) = re.findall(".*WARNING.*", server.log())
                assert re.search("embedded PostgreSQL .* development", warning)
                until(lambda: server.status("/readyz") == 200)
                token = register(server, "ada")
                with server.client(token) as http:
                    task = http.post("/tasks", json={"title": "kept"}).json()
                server.process.kill()
                server.process.wait()
            assert (data / "secret_key").stat().st_mode & 0o777 == 0o600
            with serving(folder, WITH_COVERAGE, SECRET_KEY="") as server:
                with server.client(token) as http:
                    assert http.get(f"/tasks/{task['id']}").json() == task
                pid = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
                family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
                assert server.stop(how) == 0
            assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            assert not (data / "postgres" / "postmaster.pid").exists()
        finally:
            with embedded.running(data / "postgres"):
                pass  # takes over what a failed test left, and stops it


def test_either_of_two_workers_reports_the_metrics_of_both(tmp_path: Path, own_database_url: str) -> None:
    somebodys = tmp_path / "of-another-program"
    variables = {metrics.FOLDER_VARIABLE: str(somebodys), "DATABASE_URL": own_database_url}
    with serving(tmp_path, WITH_COVERAGE, **variables) as server:
        assert read_metrics(server).of("db_pool_connections_max", pool="reports") == 4
    with serving(tmp_path, WITH_COVERAGE, **variables, WORKERS="2") as server:
        until(lambda: server.log().count(" ready\n") == 2)
        until(lambda: read_metrics(server).of("db_pool_connections_max", pool="reports") == 8)
        for _ in range(20):
            assert server.status("/nowhere") == 404
        told = {read_metrics(server).of("http_request_duration_seconds_count", status="404") for _ in range(8)}
        assert told == {20}
        killed = psutil.Process(server.process.pid).children(recursive=True)[-1]
        killed.kill()
        until(lambda: server.log().count(" ready\n") == 3)
        until(lambda: read_metrics(server).of("db_pool_connections_max", pool="reports") == 8)
        assert read_metrics(server).of("http_request_duration_seconds_count", status="404") == 20
        folder = Path(
            psutil.Process(server.process.pid).children(recursive=True)[-1].environ()[metrics.FOLDER_VARIABLE]
        )
        assert list(folder.glob("*.db"))
        shutil.rmtree(folder)
        assert server.status("/metrics") == 503
        until(lambda: "metrics were deleted" in server.log())
        psutil.Process(server.process.pid).children(recursive=True)[-1].kill()
        until(lambda: server.log().count(" ready\n") == 4)
        assert {server.status("/metrics") for _ in range(8)} == {503}  # and not what the new one alone knows
        assert server.stop() == 0
    assert not folder.exists()
    assert not somebodys.exists()


def read_metrics(server: Server) -> MetricSamples:
    with server.client() as http:
        return MetricSamples(http.get("/metrics").raise_for_status().text)
