"""Passwords over HTTP: each hash is a log-in, whichever route causes it, and no user's hashes hold up another's."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import bcrypt
import httpx
import orjson
import pytest
from fastapi import FastAPI

from service.accounts.passwords import MAX_WAITING, MAX_WAITING_PER_KEY, Passwords, _digest
from tests.api.test_limited_requests import browser, limited, log_in
from tests.support.clocks import Clock, stopped_clock
from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
OTHER = "another horse, another staple"
OTHER_ADDRESS = "198.51.100.7"


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """No permit comes back while a test is under way."""
    with stopped_clock() as clock:
        yield clock


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What bcrypt is asked to hash or verify, in order."""
    digests: list[bytes] = []

    def noted(original: Callable[[bytes, bytes], Any], digest: bytes, salt: bytes) -> Any:
        digests.append(digest)
        return original(digest, salt)

    for name in ("hashpw", "checkpw"):
        monkeypatch.setattr(bcrypt, name, partial(noted, getattr(bcrypt, name)))
    return digests


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash at a time, whatever the machine has."""
    monkeypatch.setattr("service.accounts.passwords.os.cpu_count", lambda: 2)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no password is verified to its end."""
    gate, checkpw = threading.Event(), bcrypt.checkpw

    def held(password: bytes, kept: bytes) -> bool:
        gate.wait(30)
        return checkpw(password, kept)

    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield gate
    gate.set()


async def change(user: User, *, current: str = PASSWORD, new: str = OTHER) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await user.client.put("/auth/password", json=body)


async def register(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/auth/register", json={"username": name, "password": PASSWORD})


async def test_guesses_at_a_present_password_reach_bcrypt_as_seldom_as_log_ins(
    database_url: str, sql: Sql, hashed: list[bytes]
) -> None:
    async with limited(database_url, per_minute=100, logins_limit=10) as app:
        make = Factory(sql, app)
        ada, bob = await make.user(), await make.user()
        hashed.clear()
        guesses = [await change(ada, current="wrong password") for _ in range(60)]
        assert [guess.status_code for guess in guesses] == [422] * 10 + [429] * 50
        assert len(hashed) == 10
        assert problem(guesses[-1], 429)["code"] == "rate_limited"
        assert int(guesses[-1].headers["Retry-After"]) >= 1
        policies = '"requests";q=100;w=60, "log-ins";q=10;w=60'
        assert guesses[0].headers["RateLimit-Policy"] == f'{policies}, "account";q=100;w=60'
        assert guesses[9].headers["RateLimit"] == '"requests";r=90;t=6, "log-ins";r=0;t=60, "account";r=90;t=6'
        assert guesses[10].headers["RateLimit-Policy"] == policies
        assert (await log_in(browser(app), bob)).status_code == 429  # the address has spent its log-ins
        assert (await log_in(browser(app, peer=OTHER_ADDRESS), bob)).status_code == 200
        assert (await log_in(browser(app, peer=OTHER_ADDRESS), ada)).status_code == 200


async def test_guesses_from_many_addresses_spend_the_log_ins_of_the_account(
    database_url: str, sql: Sql, hashed: list[bytes]
) -> None:
    async with limited(database_url, logins_limit=2) as app:
        ada = await Factory(sql, app).user()
        hashed.clear()
        seen = []
        for n in range(12):
            async with browser(app, peer=f"198.51.100.{n}") as client:
                client.headers["Authorization"] = f"Bearer {ada.token}"
                elsewhere = User(ada.id, ada.username, ada.token, client, ada.viewer)
                seen += [(await change(elsewhere, current="wrong password")).status_code for _ in range(2)]
        assert seen == [422] * 20 + [429] * 4
        assert len(hashed) == 20
        assert (await log_in(browser(app), ada)).status_code == 429


def left(response: httpx.Response) -> dict[str, int]:
    """Return what each policy has left."""
    parts = (one.split(";") for one in response.headers["RateLimit"].split(", "))
    return {name.strip('"'): int(rest.removeprefix("r=")) for name, rest, _ in parts}


Asking: TypeAlias = Callable[[FastAPI, User], Awaitable[httpx.Response]]


async def _register(app: FastAPI, _user: User) -> httpx.Response:
    return await register(browser(app), "newcomer")


async def _register_another(_app: FastAPI, user: User) -> httpx.Response:
    return await register(user.client, "newcomer")


async def _register_a_taken_name(app: FastAPI, user: User) -> httpx.Response:
    return await register(browser(app), user.username)


async def _log_in(app: FastAPI, user: User) -> httpx.Response:
    return await log_in(browser(app), user)


async def _log_in_wrongly(app: FastAPI, user: User) -> httpx.Response:
    return await log_in(browser(app), user, password="guess")


async def _log_in_as_nobody(app: FastAPI, user: User) -> httpx.Response:
    return await log_in(browser(app), User(0, "nobody", "", user.client, user.viewer))


async def _change(_app: FastAPI, user: User) -> httpx.Response:
    return await change(user)


async def _change_wrongly(_app: FastAPI, user: User) -> httpx.Response:
    return await change(user, current="wrong password")


HASHES: dict[Asking, tuple[int, int, bool]] = {
    _register: (201, 1, False),
    _register_another: (201, 1, False),
    _register_a_taken_name: (409, 1, False),
    _log_in: (200, 1, True),
    _log_in_wrongly: (401, 1, True),
    _log_in_as_nobody: (401, 1, True),
    _change: (204, 2, True),
    _change_wrongly: (422, 1, True),
}


@pytest.mark.parametrize("ask", HASHES, ids=lambda ask: ask.__name__)
async def test_every_hash_of_a_request_is_a_log_in_of_its_address_and_account(
    database_url: str, sql: Sql, hashed: list[bytes], ask: Asking
) -> None:
    async with limited(database_url, logins_limit=20) as app:
        ada = await Factory(sql, app).user()
        hashed.clear()
        status, hashes, has_account = HASHES[ask]
        reply = await ask(app, ada)
        assert reply.status_code == status
        assert len(hashed) == hashes
        account = {"account": 200 - hashes} if has_account else {}
        assert left(reply) == {"log-ins": 20 - hashes} | account


async def test_a_change_that_was_admitted_is_not_refused_halfway(database_url: str, sql: Sql, clock: Clock) -> None:
    async with limited(database_url, logins_limit=1) as app:
        ada = await Factory(sql, app).user()
        assert (await change(ada)).status_code == 204
        problem(await change(ada, current=OTHER, new=PASSWORD), 429)
        clock.pass_by(60_001)
        assert (await change(ada, current=OTHER, new=PASSWORD)).status_code == 204


def queue_of(app: FastAPI) -> Counter[str]:
    """Return how many hashes of each key wait."""
    passwords: Passwords = app.state.services.users.passwords
    return Counter({key: len(queue) for key, queue in passwords._slots._waiting.items()})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_three_guessing_accounts_delay_a_log_in_by_one_hash_each(
    database_url: str, sql: Sql, one_thread: None, gate: threading.Event, hashed: list[bytes]
) -> None:
    async with limited(database_url) as app:  # as if they came from many addresses
        make = Factory(sql, app)
        guessers, ada = [await make.user() for _ in range(3)], await make.user(password="ada's own")
        hashed.clear()
        guesses = [asyncio.create_task(change(one, current="wrong")) for one in guessers for _ in range(40)]
        await until(lambda: sum(guess.done() for guess in guesses) + queue_of(app).total() == len(guesses) - 1)
        assert max(queue_of(app).values()) <= MAX_WAITING_PER_KEY
        assert queue_of(app).total() <= MAX_WAITING // 2 + len(guessers)
        refused = [guess.result() for guess in guesses if guess.done()]
        assert refused
        for reply in refused:
            assert problem(reply, 503)["code"] == "unavailable"
            assert int(reply.headers["Retry-After"]) >= 1
        logging_in = asyncio.create_task(log_in(browser(app), ada, password="ada's own"))
        await until(lambda: queue_of(app)[f"account:{ada.username}"] == 1)
        gate.set()
        assert (await logging_in).status_code == 200
        assert hashed.index(_digest("ada's own")) <= 1 + len(guessers)  # the one that runs, and one of each
        assert {guess.status_code for guess in await asyncio.gather(*guesses)} == {422, 503}


async def test_a_log_in_and_a_change_of_one_account_are_hashed_one_after_the_other(
    database_url: str, sql: Sql, gate: threading.Event
) -> None:
    async with limited(database_url) as app:
        ada = await Factory(sql, app).user(username="Ada")
        first = asyncio.create_task(change(ada, current="wrong"))
        await until(lambda: "account:ada" in app.state.services.users.passwords._slots._holders)
        second = asyncio.create_task(log_in(browser(app), User(0, "aDA", "", ada.client, ada.viewer)))
        await until(lambda: queue_of(app) == {"account:ada": 1})
        gate.set()
        assert [(await one).status_code for one in (first, second)] == [422, 200]


async def test_a_hash_that_waits_is_dropped_when_its_client_leaves(
    database_url: str, sql: Sql, gate: threading.Event, hashed: list[bytes]
) -> None:
    async with limited(database_url) as app:
        ada = await Factory(sql, app).user()
        hashed.clear()
        first = asyncio.create_task(log_in(browser(app), ada))
        await until(lambda: len(app.state.services.users.passwords._slots._holders) == 1)
        leaves, sent = asyncio.Event(), []
        body = orjson.dumps({"username": ada.username, "password": "of who leaves"})
        messages = iter([{"type": "http.request", "body": body}])

        async def receive() -> Any:
            if message := next(messages, None):
                return message
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/auth/login",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1234),
        }
        leaving = asyncio.create_task(app(scope, receive, send))
        await until(lambda: queue_of(app).total() == 1)
        leaves.set()
        await leaving
        assert queue_of(app).total() == 0
        assert sent == []
        gate.set()
        assert (await first).status_code == 200
        assert _digest("of who leaves") not in hashed
