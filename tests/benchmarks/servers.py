"""The compared servers: the service with everything on and its twins, each a process of its own on one core."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import httpx
import jwt
import psutil  # type: ignore[import-untyped]
import psycopg

from service.accounts import passwords
from tests.benchmarks.database import FOLDER, Cluster
from tests.benchmarks.events import is_ready
from tests.benchmarks.twins import common
from tests.support.servers import ADDRESS, environment, until

SERVER_CORE, LOAD_CORE = 0, 1
SERVICE, ORM, MODELS, BARE, HELLO = "service", "O", "P", "C", "hello"
TWINS = {ORM: "orm", MODELS: "asyncpg_models", BARE: "bare", HELLO: "hello"}
TWINS_PYTHON = FOLDER / "venv" / "bin" / "python"
PASSWORD, TWIN_SECRET_KEY = "correct horse battery", "bench-" + "k" * 32
# The reader has 4,600 tasks, 370 of them of the last month. Another account writes, so that the lists stay the same.
USERNAMES = {"reader": "load-20", "author": "load-21", "administrator": "load-1"}


@dataclass(frozen=True)
class Accounts:
    """Who sends the requests, by their part in the comparison, and the reader's tasks."""

    ids: dict[str, int]
    task_ids: list[int]


@dataclass(frozen=True)
class Server:
    """A running server and the tokens of the accounts."""

    name: str
    url: str
    process: psutil.Process
    tokens: dict[str, str] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the process has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        """Return the memory of the process."""
        return int(self.process.memory_info().rss)


def prepare_accounts(url: str) -> Accounts:
    """Set the accounts' password and return their ids."""
    hashed = bcrypt.hashpw(passwords._digest(PASSWORD), bcrypt.gensalt(4)).decode()
    with psycopg.connect(url, autocommit=True) as connection:
        names = list(USERNAMES.values())
        connection.execute("update users set password_hash = %s where username = any(%s)", [hashed, names])
        rows: dict[str, int] = dict(
            connection.execute("select username, id from users where username = any(%s)", [names]).fetchall()
        )
        ids = {part: rows[name] for part, name in USERNAMES.items()}
        tasks = connection.execute("select id from tasks where user_id = %s", [ids["reader"]]).fetchall()
    return Accounts(ids, [task_id for (task_id,) in tasks])


@contextmanager
def running(cluster: Cluster, redis_url: str, accounts: Accounts, names: list[str]) -> Iterator[dict[str, Server]]:
    """Start the servers, each ready for requests."""
    with ExitStack() as stack:
        servers = {}
        for name in names:
            if name == SERVICE:
                command, variables = service(cluster.service_url, redis_url)
            else:
                command, variables = _twin(TWINS[name], cluster.twins_url, accounts)
            servers[name] = stack.enter_context(started(name, command, variables))
        for name, server in servers.items():
            server.tokens.update(_log_in(server.url) if name == SERVICE else _issue_tokens(accounts))
        yield servers


def service(database_url: str, redis_url: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the service, with everything on."""
    variables = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "RATE_LIMIT_PER_MINUTE": "1000000",
        "LOGIN_LIMIT_PER_MINUTE": "0",
        "ACCESS_TOKEN_MINUTES": "1440",
        "LOG_FILE": str(FOLDER / "service.log"),
    }
    return [sys.executable, "-m", "service", "serve"], environment(**variables)


def _twin(module: str, database_url: str, accounts: Accounts) -> tuple[list[str], dict[str, str]]:
    if not TWINS_PYTHON.exists():
        sys.exit("the twins' packages are not installed: run `make bench`")
    variables = {
        "TWIN_DATABASE_URL": database_url,
        "TWIN_SECRET_KEY": TWIN_SECRET_KEY,
        "TWIN_READER_ID": str(accounts.ids["reader"]),
        "TWIN_AUTHOR_ID": str(accounts.ids["author"]),
    }
    options = ["--port=0", "--no-access-log", "--loop=uvloop", "--http=httptools"]
    return [str(TWINS_PYTHON), "-m", "uvicorn", f"tests.benchmarks.twins.{module}:app", *options], environment(
        **variables
    )


@contextmanager
def started(name: str, command: list[str], variables: dict[str, str]) -> Iterator[Server]:
    """Start a server on its core and wait until it listens."""
    output = FOLDER / f"{name}.stdout"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(SERVER_CORE), *command],
            cwd=FOLDER,
            env=variables,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(name, _address(output, process), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def _address(output: Path, process: subprocess.Popen[bytes]) -> str:
    until(lambda: ADDRESS.search(output.read_text()) or process.poll() is not None)
    found = ADDRESS.search(output.read_text())
    assert found, output.read_text()
    return found[1]


def _log_in(url: str) -> dict[str, str]:
    """Return an access token of each account."""
    with httpx.Client(base_url=url, timeout=30) as client:
        until(lambda: is_ready(client))
        return {
            part: client.post("/auth/login", json={"username": name, "password": PASSWORD}).json()["access_token"]
            for part, name in USERNAMES.items()
        }


def _issue_tokens(accounts: Accounts) -> dict[str, str]:
    return {
        part: jwt.encode(
            {
                "sub": str(account_id),
                "role": "admin" if part == "administrator" else "user",
                "exp": int(time.time()) + 86_400,
            },
            TWIN_SECRET_KEY,
            common.ALGORITHM,
        )
        for part, account_id in accounts.ids.items()
    }
