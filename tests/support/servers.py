"""Runs `python -m service` in a process, a folder and an environment of its own."""

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
WITH_COVERAGE = True  # the second argument of `serving` and `starting`
ADDRESS = re.compile(r"Uvicorn running on (http://[\d.]+:\d+)")


def environment(**values: str) -> dict[str, str]:
    """Return the environment of a process; it keeps `PATH` and the variables of coverage."""
    own = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
    return own | {"PYTHONPATH": str(ROOT), "SECRET_KEY": SECRET_KEY, "LOG_FILE": "", "PORT": "0"} | values


def command(*arguments: str) -> list[str]:
    """Return the command line; warnings are errors, except for sockets that uvicorn leaves open."""
    return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "service", *arguments]


def run(
    folder: Path,
    *arguments: str,
    stdin_text: str | None = None,
    open_files: str = "",
    **values: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `stdin_text` is its standard input, `open_files` is as for `serving`."""
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
    """Return the one error line of a failed command."""
    assert ended.returncode == 1, ended
    assert re.fullmatch(r"error: .+\n", ended.stderr), ended
    return ended.stderr


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true, at most 30 seconds."""
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
        """Return the standard output and error so far."""
        return self.stdout.read_text()

    def client(self, token: str = "") -> httpx.Client:
        """Return a client with keep-alive connections."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30
        )

    def status(self, path: str) -> int:
        """Return the status of a GET on a new connection; 0 if there is no answer."""
        try:
            return httpx.get(f"{self.url}{path}").status_code
        except httpx.TransportError:
            return 0

    def dial(self) -> socket.socket:
        """Open a TCP connection."""
        host, port = urlsplit(self.url).netloc.split(":")
        return socket.create_connection((host, int(port)), WAIT_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the stop signal and return the exit code."""
        self.process.send_signal(how)
        return self.process.wait(WAIT_SECONDS)


@contextmanager
def serving(folder: Path, coverage: bool = False, /, *, open_files: str = "", **values: str) -> Iterator[Server]:
    """Start the service and wait until it answers; `open_files` is its soft and hard limit, such as `64:256`."""
    with starting(folder, coverage, open_files=open_files, **values) as server:
        until(lambda: server.status("/healthz") or server.process.poll() is not None)
        yield server


@contextmanager
def starting(folder: Path, coverage: bool = False, /, *, open_files: str = "", **values: str) -> Iterator[Server]:
    """Start the service and wait until it listens on a free port; kill it with its workers at the end.

    Coverage takes 1.2 s of a start and a third of the speed: the tests of the server itself measure it, others do not.
    """
    if "DATABASE_URL" in values:
        values["DATABASE_URL"] = as_service(values["DATABASE_URL"])
    stdout = folder / "stdout"
    variables = environment(TMPDIR=str(folder), **values)
    if not coverage:
        variables = {name: value for name, value in variables.items() if not name.startswith("COV")}
    with stdout.open("wb") as output:
        process = subprocess.Popen(
            [*_limited(open_files), *command("serve")],
            cwd=folder,
            env=variables,
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
