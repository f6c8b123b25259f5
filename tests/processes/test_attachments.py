"""Attachments on the running service: what they take of its memory, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.benchmarks.attachments import MEGABYTE, PIECE, Client, grown
from tests.support.s3_server import S3Server
from tests.support.servers import Server, serving, until

SIZE = 100 * MEGABYTE
MAX_MEGABYTES = 20
UNLIMITED = {"RATE_LIMIT_PER_MINUTE": "0", "LOGIN_LIMIT_PER_MINUTE": "0", "ATTACHMENT_MAX_BYTES": str(SIZE)}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A server for this file."""
    with S3Server() as server:
        yield server


def files(folder: Path) -> list[Path]:
    """Return all files that a service in this folder has of attachments."""
    return [path for path in (folder / ".data" / "attachments").rglob("*") if path.is_file()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_hundred_megabytes_pass_through_twenty(
    own_database_url: str, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    store: dict[str, str] = {}
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        store = {name.upper(): value for name, value in server.settings("memory").items()}
    with serving(tmp_path, DATABASE_URL=own_database_url, **UNLIMITED, **store) as running:
        client, pid = Client.of(running), running.process.pid
        client.take(client.send(1))  # what is loaded at first use is none of the file's
        made: list[int] = []
        assert grown(pid, lambda: made.append(client.send(SIZE))) < MAX_MEGABYTES
        assert grown(pid, lambda: made.append(client.take(made[0]))) < MAX_MEGABYTES
        assert made[1] == SIZE


@contextmanager
def sending(running: Server, client: Client, *, sent: int) -> Iterator[None]:
    """Send the beginning of a file, and leave the connection open."""
    head = (
        f"POST /tasks/{client.task_id}/attachments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {SIZE}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    with running.dial() as socket:
        socket.sendall(head.encode())
        for _ in range(0, sent, PIECE):
            socket.sendall(b"x" * PIECE)
        yield


def wake(running: Server, client: Client) -> None:
    """Let it be swept now, and not within a minute: by a deletion."""
    with running.client(client.token) as session:
        path = f"/tasks/{client.task_id}/attachments"
        one = session.post(path, files={"file": b"x"}).json()["id"]
        assert session.delete(f"{path}/{one}").status_code == 204


def test_files_orphaned_by_a_kill_are_removed_a_day_later(own_database_url: str, tmp_path: Path) -> None:
    """Amid a file, between a file and its row, and between a deletion and its file."""
    with serving(tmp_path, DATABASE_URL=own_database_url, **UNLIMITED) as running:
        client = Client.of(running)
        kept = client.send(1000)
        with sending(running, client, sent=2 * MEGABYTE):
            until(lambda: len(files(tmp_path)) == 2)
            running.stop(signal.SIGKILL)
    with psycopg.connect(own_database_url, autocommit=True) as database:
        folder = database.execute("select folder from attachment_store").fetchone()
        assert folder
        shelf = tmp_path / ".data" / "attachments" / folder[0] / "ab"
        shelf.mkdir(exist_ok=True)
        (shelf / ("ab" * 16)).write_bytes(b"a file whose row was never written")
        database.execute(
            "insert into attachments (task_id, key, filename, content_type, size, sha256)"
            " values (%s, %s, 'x', 'x/y', 0, repeat('0', 64))",
            [client.task_id, f"{folder[0]}/{'cd' * 16}"],
        )
        (shelf.with_name("cd")).mkdir(exist_ok=True)
        (shelf.with_name("cd") / ("cd" * 16)).touch()
        database.execute("delete from attachments where filename = 'x' and size = 0")
        database.execute("update attachment_store set sweep_due_at = '-infinity'")
    assert len(files(tmp_path)) == 4
    with serving(tmp_path, DATABASE_URL=own_database_url, **UNLIMITED) as running:
        wake(running, client)
        until(lambda: len(files(tmp_path)) == 3)  # the deleted one's goes, the others are too young
        assert Client(running, client.token, client.task_id).take(kept) == 1000
    two_days_ago = 1_600_000_000
    for path in files(tmp_path):
        os.utime(path, (two_days_ago, two_days_ago))
    with psycopg.connect(own_database_url, autocommit=True) as database:
        database.execute("update attachment_store set sweep_due_at = '-infinity'")
    with serving(tmp_path, DATABASE_URL=own_database_url, **UNLIMITED) as running:
        wake(running, client)
        until(lambda: len(files(tmp_path)) == 1)
        assert Client(running, client.token, client.task_id).take(kept) == 1000
        until(lambda: "orphan files removed" in running.log())


def test_a_stop_during_an_upload_leaves_no_file(own_database_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, DATABASE_URL=own_database_url, **UNLIMITED) as running:
        client = Client.of(running)
        with sending(running, client, sent=2 * MEGABYTE):
            until(lambda: len(files(tmp_path)) == 1)
            assert running.stop() == 0
    assert files(tmp_path) == []
