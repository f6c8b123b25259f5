"""Measures what large attachments cost: `python -m tests.benchmarks.attachments [--megabytes N] [--at-once N]`.

Prints, for each store, how long it takes to send a file in and out, and how much memory the service takes for that at
most, beyond what it held before. A minute, and twice the files on disk.
"""

from __future__ import annotations

import argparse
import http.client
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from urllib.parse import urlsplit

from service.db import embedded, migrations
from tests.support.s3_server import S3Server
from tests.support.servers import Server, serving

MEGABYTE = 1_000_000
PIECE = 65_536
BOUNDARY = "b" * 32
CREDENTIALS = {"username": "ada", "password": "correct horse battery"}


@dataclass(frozen=True)
class Client:
    """Someone with a task, who sends and takes files without holding them."""

    server: Server
    token: str
    task_id: int

    @classmethod
    def of(cls, server: Server) -> Client:
        """Make an account and a task."""
        with server.client() as client:
            client.post("/auth/register", json=CREDENTIALS)
            token = client.post("/auth/login", json=CREDENTIALS).json()["access_token"]
        with server.client(token) as client:
            return cls(server, token, client.post("/tasks", json={"title": "x"}).json()["id"])

    def send(self, size: int) -> int:
        """Send a file of so many bytes, in chunks, and return its id."""
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=300)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        path = f"/tasks/{self.task_id}/attachments"
        connection.request("POST", path, _body(size), headers, encode_chunked=True)
        answer = connection.getresponse()
        reply = answer.read().decode()
        assert answer.status == 201, reply
        connection.close()
        return int(reply.partition('"id":')[2].partition(",")[0])

    def take(self, attachment_id: int) -> int:
        """Take a file and return how many bytes it had."""
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=300)
        headers = {"Authorization": f"Bearer {self.token}"}
        connection.request("GET", f"/tasks/{self.task_id}/attachments/{attachment_id}", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        taken = 0
        while piece := answer.read(PIECE):
            taken += len(piece)
        connection.close()
        return taken


def _body(size: int) -> Iterator[bytes]:
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    piece = token_bytes(PIECE)
    for start in range(0, size, PIECE):
        yield piece[: size - start]
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def _held(pid: int, what: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024 / MEGABYTE


def grown(pid: int, work: Callable[[], object]) -> float:
    """Do the work and return by how many megabytes the process's memory was larger meanwhile, at most (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the highest so far
    before = _held(pid, "VmRSS")
    work()
    return _held(pid, "VmHWM") - before


@contextmanager
def _serving(**store: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, embedded.running(Path(folder, "pg"), options={"fsync": "off"}) as url:
        migrations.migrate(url)
        values = {"ATTACHMENT_MAX_BYTES": "1000000000", "RATE_LIMIT_PER_MINUTE": "0", "LOGIN_LIMIT_PER_MINUTE": "0"}
        with serving(Path(folder), DATABASE_URL=url, **values, **store) as server:
            yield server


def measure(server: Server, *, size: int, at_once: int) -> None:
    """Send and take, one file and then several at once."""
    client, pid = Client.of(server), server.process.pid
    made = [client.send(1)]
    client.take(made[0])
    for number in sorted({1, at_once}):
        with ThreadPoolExecutor(number) as clients:
            for what, one in (
                ("in", lambda _: made.append(client.send(size))),
                ("out", lambda _: client.take(made[-1])),
            ):
                begun = time.perf_counter()
                megabytes = grown(pid, lambda: list(clients.map(one, range(number))))  # noqa: B023
                seconds = time.perf_counter() - begun
                print(
                    f"  {number:2} x {size / MEGABYTE:.0f} MB {what:3}  {seconds:6.2f} s"
                    f"  {number * size / MEGABYTE / seconds:7.1f} MB/s  {megabytes:+6.1f} MB of memory",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_args()
    print("folder")
    with _serving() as server:
        measure(server, size=arguments.megabytes * MEGABYTE, at_once=arguments.at_once)
    print("S3 (moto's server, on the same machine)")
    with S3Server() as s3, _serving(**{name.upper(): value for name, value in s3.settings("load").items()}) as server:
        measure(server, size=arguments.megabytes * MEGABYTE, at_once=arguments.at_once)


if __name__ == "__main__":
    main()
