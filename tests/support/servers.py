"""Runs `python -m service` as an operator does: a process of its own, a folder of its own, and no other environment."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]

from tests.conftest import SECRET_KEY, as_service

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 30
ADDRESS = re.compile(r"Uvicorn running on (http://[\d.]+:\d+)")


def environment(**values: str) -> dict[str, str]:
    """Give a whole environment; coverage finds its way through it."""
    own = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
    return own | {"PYTHONPATH": str(ROOT), "SECRET_KEY": SECRET_KEY, "LOG_FILE": "", "PORT": "0"} | values


def command(*arguments: str) -> list[str]:
    """Give the command line; warnings are errors, but for the sockets that uvicorn leaves unclosed."""
    return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "service", *arguments]


def run(
    folder: Path,
    *arguments: str,
    stdin_text: str | None = None,
    open_files: str = "",
    **values: str,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; given: what it reads from its standard input; open_files: as for `serving`."""
    if "DATABASE_URL" in values and arguments[:1] != ("migrate",):
        values["DATABASE_URL"] = as_service(values["DATABASE_URL"])
    return subprocess.run(
        [*_limited(open_files), *command(*arguments)],
        cwd=folder,
        env=environment(**values),
        input=stdin_text,
        stdin=None if stdin_text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def _limited(open_files: str) -> list[str]:
    return ["prlimit", f"--nofile={open_files}"] if open_files else []


def refusal(ended: subprocess.CompletedProcess[str]) -> str:
    """Give the one line with which a command failed."""
    assert ended.returncode == 1, ended
    assert re.fullmatch(r"error: .+\n", ended.stderr), ended
    return ended.stderr


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True)
class Server:
    """A running service."""

    process: subprocess.Popen[bytes]
    stdout: Path
    url: str

    def log(self) -> str:
        """Give all that it has said."""
        return self.stdout.read_text()

    def client(self, token: str = "") -> httpx.Client:
        """Give a client that keeps its connection."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30
        )

    def status(self, path: str) -> int:
        """Ask once, on a connection of its own; 0 where nobody answers."""
        try:
            return httpx.get(f"{self.url}{path}").status_code
        except httpx.TransportError:
            return 0

    def dial(self) -> socket.socket:
        """Open a bare connection."""
        host, port = urlsplit(self.url).netloc.split(":")
        return socket.create_connection((host, int(port)), WAIT_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop and give its exit code."""
        self.process.send_signal(how)
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def serving(folder: Path, *, open_files: str = "", **values: str) -> Iterator[Server]:
    """Start the service and wait until it answers; open_files: its soft and hard limit of them, as `64:256`."""
    with starting(folder, open_files=open_files, **values) as server:
        until(lambda: server.status("/healthz") or server.process.poll() is not None)
        yield server


@contextmanager
def starting(folder: Path, *, open_files: str = "", **values: str) -> Iterator[Server]:
    """Start the service on a free port and wait until it has taken that; whatever happens, it is gone afterwards."""
    if "DATABASE_URL" in values:
        values["DATABASE_URL"] = as_service(values["DATABASE_URL"])
    stdout = folder / "stdout"
    with stdout.open("wb") as output:
        process = subprocess.Popen(
            [*_limited(open_files), *command("serve")],
            cwd=folder,
            env=environment(TMPDIR=str(folder), **values),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: ADDRESS.search(stdout.read_text()) or process.poll() is not None)
        found = ADDRESS.search(stdout.read_text())
        assert found, stdout.read_text()
        yield Server(process, stdout, found[1])
    finally:
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for one in (process, *workers):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
