"""PostgreSQL clusters that a test may crash, copy, promote and restore into."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from service.db import embedded, migrations

OPTIONS = {"fsync": "off", "shared_buffers": "16MB", "deadlock_timeout": "50ms"}
WAIT_SECONDS = 20


class Cluster:
    """A cluster that runs until a test crashes it; `url` is valid while the folder is not moved."""

    def __init__(self, folder: Path, url: str, options: dict[str, str]) -> None:
        self.folder = folder
        self.url = url
        self._options = options

    def crash(self) -> None:
        """Stop the cluster as a power cut would: unwritten data is lost."""
        postmaster = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
        postmaster.send_signal(signal.SIGQUIT)
        deadline = time.monotonic() + WAIT_SECONDS
        while postmaster.is_running() and postmaster.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def start(self) -> None:
        """Start the cluster after a crash; it runs until the enclosing `running` ends."""
        with embedded.running(self.folder, options=self._options):
            pass


@contextmanager
def running(folder: Path, **options: str) -> Iterator[Cluster]:
    """Run the cluster of a folder; create it if there is none."""
    all_options = OPTIONS | options
    with embedded.running(folder, options=all_options) as url:
        yield Cluster(folder, url, all_options)


@contextmanager
def own_folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL may enter as an ordinary user; it may not enter those of pytest."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as path:
        yield Path(path)


def make(folder: Path) -> None:
    """Create a migrated cluster and stop it, so that it can be copied."""
    with running(folder) as cluster:
        migrations.migrate(cluster.url)


def copy(source: Path, target: Path) -> Path:
    """Copy a stopped cluster with the owners of its files; return the target."""
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def base_backup(source: Cluster, folder: Path) -> Path:
    """Create a streaming standby of a cluster without starting it; return its folder."""
    folder.mkdir(mode=0o700)
    standby = embedded._Cluster.at(folder)
    standby._grant_access(folder)
    arguments = [f"--dbname={source.url}", f"--pgdata={folder}", "--write-recovery-conf", "--checkpoint=fast"]
    standby._run("pg_basebackup", *arguments)
    return folder


def program(name: str, *arguments: str) -> str:
    """Run one of PostgreSQL's programs and return its standard output."""
    path = embedded._Cluster.at(Path("/")).programs / name
    ended = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
