"""Two processes on one database: what ends a session, a key or a role on one acts on both, at once."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from secrets import token_bytes
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from loguru import logger
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from service.accounts.passwords import Passwords
from service.accounts.tokens import Tokens
from service.db import pool
from tests.conftest import EMPTY, SECRET_KEY
from tests.support.gates import Gate
from tests.support.servers import Server, serving, until

Sql: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
PASSWORD = "correct horse battery staple"
AT_WORST_SECONDS = 1.0
BUSY_SECONDS = 1.0  # what a busy machine may add
ROUNDS = 5
LOST = "listener disconnected"
_numbers = count(1)


class Door:
    """A gate before the database for what listens, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._gate = Gate(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Door:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self.shut("refused")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self._gate.url

    def open(self) -> None:
        asyncio.run_coroutine_threadsafe(self._gate.open(), self._loop).result()

    def shut(self, how: str) -> None:
        asyncio.run_coroutine_threadsafe(self._gate.shut(how), self._loop).result()


@dataclass(frozen=True)
class Pair:
    """Two processes; the second one listens through a door."""

    a: Server
    b: Server
    door: Door
    sql: Sql

    def __post_init__(self) -> None:
        hashed = asyncio.run(Passwords(cost=4).hash(PASSWORD, payer=None))
        object.__setattr__(self, "_hash", hashed)

    def user(self, role: str = "user") -> int:
        hashed = self._hash  # type: ignore[attr-defined]
        statement = "insert into users (username, password_hash, role) values (%s, %s, %s) returning id"
        return self._value(statement, f"user-{next(_numbers)}", hashed, role)

    def session(self, user_id: int, role: str = "user") -> tuple[int, str]:
        """Begin a session; return its id and an access token."""
        statement = (
            "insert into sessions (user_id, expires_at, secret, refresh_hash)"
            " values (%s, now() + interval '1 day', %s, %s) returning id"
        )
        session_id = self._value(statement, user_id, token_bytes(32), token_bytes(32))
        token = Tokens((SECRET_KEY,), minutes=15).issue(user_id=user_id, role=role, session_id=session_id)
        return session_id, token

    def key(self, user_id: int) -> tuple[int, str]:
        """Make an API key; return its id and it."""
        key = f"tm_{token_bytes(32).hex()}"
        statement = "insert into api_keys (user_id, name, hash) values (%s, 'x', %s) returning id"
        return self._value(statement, user_id, hashlib.sha256(key.encode()).digest()), key

    def task(self, user_id: int) -> int:
        return self._value("insert into tasks (user_id, title) values (%s, 'x') returning id", user_id)

    def _value(self, statement: str, *values: object) -> int:
        row = self.sql.execute(statement, values).fetchone()
        assert row
        return int(row[0])

    def asked(self) -> list[tuple[datetime, ...]]:
        """When a statement of the processes' pools began last, but for what they do by themselves."""
        statement = "select max(query_start) from pg_stat_activity where application_name = %s"
        statement += " and query !~ '/. (attachments|events.expire|idempotency.expire|accounts.expire_sessions)'"
        statement += " and query !~ '/. accounts.note_key_use'"
        statement += " and datname = current_database() and query !~* '^ *(begin|commit|rollback)'"
        return self.sql.execute(statement, [pool.APPLICATION_NAME]).fetchall()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Pair]:
    values = {"DATABASE_URL": database_url, "RATE_LIMIT_PER_MINUTE": "0", "LOGIN_LIMIT_PER_MINUTE": "0"}
    with (
        psycopg.connect(database_url, autocommit=True) as sql,
        Door(database_url) as door,
        serving(tmp_path_factory.mktemp("a"), **values) as a,
        serving(tmp_path_factory.mktemp("b"), DATABASE_LISTEN_URL=door.url, **values) as b,
    ):
        sql.execute(EMPTY)
        until(lambda: a.status("/readyz") == b.status("/readyz") == 200)
        yield Pair(a, b, door, sql)
        sql.execute(EMPTY)


@dataclass(frozen=True)
class Case:
    """Someone with a token, an act on the first process, and what `path` answers to the token before and after."""

    token: str
    act: Callable[[httpx.Client], httpx.Response]
    path: str = "/auth/me"
    before: int = 200
    after: int = 401


def by(token: str, method: str, path: str, body: object = None) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})


def log_out(pair: Pair) -> Case:
    _, token = pair.session(pair.user())
    return Case(token, by(token, "POST", "/auth/logout"))


def end_of_session(pair: Pair) -> Case:
    user_id = pair.user()
    session_id, token = pair.session(user_id)
    return Case(token, by(pair.session(user_id)[1], "DELETE", f"/auth/sessions/{session_id}"))


def another_password(pair: Pair) -> Case:
    user_id = pair.user()
    body = {"current_password": PASSWORD, "new_password": PASSWORD * 2}
    return Case(pair.session(user_id)[1], by(pair.session(user_id)[1], "PUT", "/auth/password", body))


def deactivation(pair: Pair) -> Case:
    user_id, admin_id = pair.user(), pair.user("admin")
    act = by(pair.session(admin_id)[1], "PATCH", f"/users/{user_id}", {"active": False})
    return Case(pair.session(user_id)[1], act)


def deactivation_of_a_keys_owner(pair: Pair) -> Case:
    user_id, admin_id = pair.user(), pair.user("admin")
    act = by(pair.session(admin_id)[1], "PATCH", f"/users/{user_id}", {"active": False})
    return Case(pair.key(user_id)[1], act)


def end_of_key(pair: Pair) -> Case:
    user_id = pair.user()
    key_id, key = pair.key(user_id)
    return Case(key, by(pair.session(user_id)[1], "DELETE", f"/auth/keys/{key_id}"))


def demotion(pair: Pair) -> Case:
    user_id, admin_id = pair.user("admin"), pair.user("admin")
    act = by(pair.session(admin_id)[1], "PATCH", f"/users/{user_id}", {"role": "user"})
    return Case(pair.session(user_id, "admin")[1], act, "/users", 200, 403)


def demotion_from_others_tasks(pair: Pair) -> Case:
    case, task_id = demotion(pair), pair.task(pair.user())
    return Case(case.token, case.act, f"/tasks/{task_id}", 200, 403)


def promotion(pair: Pair) -> Case:
    user_id, admin_id, task_id = pair.user(), pair.user("admin"), pair.task(pair.user())
    act = by(pair.session(admin_id)[1], "PATCH", f"/users/{user_id}", {"role": "admin"})
    return Case(pair.session(user_id)[1], act, f"/tasks/{task_id}", 403, 200)


CASES = [
    log_out,
    end_of_session,
    another_password,
    deactivation,
    deactivation_of_a_keys_owner,
    end_of_key,
    demotion,
    demotion_from_others_tasks,
    promotion,
]
every = pytest.mark.parametrize("made", CASES, ids=lambda made: made.__name__)


@contextmanager
def listening(server: Server, token: str) -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws") + "/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None) as socket:
        assert '"ready"' in str(socket.recv(timeout=20))
        yield socket


def closed(socket: ClientConnection) -> int:
    """Return the code that a socket is closed with."""
    with pytest.raises(ConnectionClosed) as ended:
        socket.recv(timeout=AT_WORST_SECONDS + BUSY_SECONDS)
    assert ended.value.rcvd
    return ended.value.rcvd.code


def acted(case: Case, a: httpx.Client) -> float:
    """Let it happen, and return when it had."""
    assert case.act(a).is_success
    return time.monotonic()


@every
def test_a_revocation_on_one_process_takes_effect_on_both_at_once(pair: Pair, made: Callable[[Pair], Case]) -> None:
    took = []
    with pair.a.client() as a, pair.b.client() as b:
        for _ in range(ROUNDS):
            case = made(pair)
            ask = by(case.token, "GET", case.path)
            for client in (a, b, a, b):  # it is remembered
                assert ask(client).status_code == case.before
            with listening(pair.b, case.token) as elsewhere, listening(pair.a, case.token) as here:
                since = acted(case, a)
                assert ask(a).status_code == case.after
                until(lambda: ask(b).status_code == case.after)  # noqa: B023
                took.append(time.monotonic() - since)
                assert [closed(elsewhere), closed(here)] == [4403, 4403]
    logger.info("{}: median {:.0f} ms, at worst {:.0f} ms", made, 1000 * statistics.median(took), 1000 * max(took))
    assert max(took) < AT_WORST_SECONDS + BUSY_SECONDS


@every
def test_a_process_without_a_listener_connection_reads_the_database(pair: Pair, made: Callable[[Pair], Case]) -> None:
    case = made(pair)
    ask = by(case.token, "GET", case.path)
    with pair.a.client() as a, pair.b.client() as b:
        until(lambda: remembers(pair, b))
        assert [ask(b).status_code for _ in range(3)] == [case.before] * 3
        disconnects_before = pair.b.log().count(LOST)
        pair.door.shut("refused")
        try:
            until(lambda: pair.b.log().count(LOST) > disconnects_before)
            assert ask(b).status_code == case.before
            acted(case, a)
            assert ask(b).status_code == case.after
        finally:
            pair.door.open()
        assert ask(b).status_code == case.after


@every
def test_a_process_whose_database_stops_answering_trusts_its_cache_for_a_second(
    pair: Pair, made: Callable[[Pair], Case]
) -> None:
    case = made(pair)
    ask = by(case.token, "GET", case.path)
    with pair.a.client() as a, pair.b.client() as b:
        until(lambda: remembers(pair, b))
        assert [ask(b).status_code for _ in range(3)] == [case.before] * 3
        pair.door.shut("silent")
        try:
            since = acted(case, a)
            until(lambda: ask(b).status_code == case.after)
            assert time.monotonic() - since < AT_WORST_SECONDS + BUSY_SECONDS
        finally:
            pair.door.open()


def remembers(pair: Pair, client: httpx.Client) -> bool:
    """Return whether a process answers someone it knows without asking the database."""
    ask = by(pair.session(pair.user())[1], "GET", "/users")
    assert ask(client).status_code == 403
    asked = pair.asked()
    assert [ask(client).status_code for _ in range(5)] == [403] * 5
    return pair.asked() == asked


def test_a_cached_session_needs_no_database_query(pair: Pair) -> None:
    """By a route that needs to know who asks, and nothing else."""
    with pair.b.client() as b:
        until(lambda: remembers(pair, b))
        user_id = pair.user()
        for credential in (pair.session(user_id)[1], pair.key(user_id)[1]):
            ask = by(credential, "GET", "/users")
            first = ask(b)
            assert (first.status_code, "db" in first.headers["Server-Timing"]) == (403, True)
            asked = pair.asked()
            answers = [ask(b) for _ in range(100)]
            assert {answer.status_code for answer in answers} == {403}
            assert not [one for one in answers if "db;" in one.headers["Server-Timing"]]
            assert pair.asked() <= asked


def test_without_a_listener_connection_every_request_reads_the_database(pair: Pair) -> None:
    ask = by(pair.session(pair.user())[1], "GET", "/users")
    with pair.b.client() as b:
        until(lambda: remembers(pair, b))
        disconnects_before = pair.b.log().count(LOST)
        pair.door.shut("refused")
        try:
            until(lambda: pair.b.log().count(LOST) > disconnects_before)
            answers = [ask(b) for _ in range(20)]
            assert {answer.status_code for answer in answers} == {403}
            assert all("db;" in answer.headers["Server-Timing"] for answer in answers)
        finally:
            pair.door.open()
        until(lambda: remembers(pair, b))
