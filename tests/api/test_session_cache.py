"""What is remembered of sessions and keys, how long it is believed, and what makes it forgotten."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from service.accounts import session_cache as module
from service.accounts.session_cache import Sessions, hashed
from service.accounts.tokens import Tokens
from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from service.db.statements import Statement
from tests.support.factories import Factory, User

TOKENS = Tokens(("k" * 32,), minutes=15)
KEY = "tm_" + "x" * 43
LATER = datetime(2999, 1, 1, tzinfo=UTC)

Credential: TypeAlias = Callable[[User], Awaitable[str]]


@dataclass
class Listening:
    """Whether the listener hears of all changes, as a test says."""

    is_current: bool = True

    def __call__(self) -> bool:
        return self.is_current


@pytest.fixture
def listening() -> Listening:
    return Listening()


@pytest.fixture
def sessions(database: Database, listening: Listening) -> Sessions:
    """What a process remembers whose listener hears of all changes, until a test says otherwise."""
    return Sessions(database, TOKENS, is_current=listening)


@pytest.fixture(params=["token", "key"])
def credential(request: pytest.FixtureRequest, database: Database, make: Factory) -> Credential:
    """Makes what an account comes with: a token of its session, or an API key."""

    async def of(user: User) -> str:
        if request.param == "token":
            return TOKENS.issue(user_id=user.id, role="user", session_id=await make.session(user.id))
        key = KEY + str(user.id)
        await q.accounts.create_key(
            database, user_id=user.id, name="x", hash=hashed(key), read_only=True, expires_at=LATER, most=9
        )
        return key

    return of


async def end_all(make: Factory) -> None:
    await make.sql.execute("delete from sessions; delete from api_keys")


async def test_a_session_and_a_key_speak_for_the_account_as_it_is_now(
    database: Database, sessions: Sessions, make: Factory
) -> None:
    ada = await make.user()
    session_id = await make.session(ada.id)
    token = TOKENS.issue(user_id=ada.id, role="user", session_id=session_id)
    await make.sql.execute("update users set role = 'admin'")
    row = await q.accounts.create_key(
        database, user_id=ada.id, name="x", hash=hashed(KEY), read_only=True, expires_at=LATER, most=9
    )
    assert row is not None
    by_token, by_key = await sessions.viewer(token), await sessions.viewer(KEY)
    assert vars(by_token) == vars(Viewer(ada.id, True, session_id=session_id, expires_at=by_token.expires_at))
    assert time.time() < by_token.expires_at <= time.time() + 900
    assert vars(by_key) == vars(Viewer(ada.id, True, read_only=True, key_id=row["id"], expires_at=LATER.timestamp()))


async def test_what_is_remembered_is_believed_only_while_the_listener_hears(
    sessions: Sessions, listening: Listening, make: Factory, credential: Credential
) -> None:
    ada = await make.user()
    given = await credential(ada)
    assert await sessions.viewer(given) == ada.viewer
    await end_all(make)  # and nobody has told this process
    assert await sessions.viewer(given) == ada.viewer
    listening.is_current = False
    with pytest.raises(UnauthorizedError):
        await sessions.viewer(given)


async def test_who_was_never_told_to_believe_asks_each_time(
    database: Database, make: Factory, credential: Credential
) -> None:
    deaf, given = Sessions(database, TOKENS, is_current=lambda: False), await credential(await make.user())
    await deaf.viewer(given)
    await end_all(make)
    with pytest.raises(UnauthorizedError):
        await deaf.viewer(given)


@pytest.mark.parametrize("all_accounts", [False, True])
async def test_what_is_forgotten_is_asked_for_again(
    sessions: Sessions, make: Factory, credential: Credential, all_accounts: bool
) -> None:
    ada, bob = await make.user(), await make.user()
    hers, his = await credential(ada), await credential(bob)
    for given in (hers, his):
        await sessions.viewer(given)
    await end_all(make)
    sessions.forget(None if all_accounts else ada.id)
    with pytest.raises(UnauthorizedError):
        await sessions.viewer(hers)
    if all_accounts:
        with pytest.raises(UnauthorizedError):
            await sessions.viewer(his)
    else:
        assert await sessions.viewer(his) == bob.viewer


@pytest.mark.parametrize("others", [False, True])
async def test_what_was_read_before_something_was_forgotten_is_not_remembered(
    sessions: Sessions, make: Factory, credential: Credential, others: bool
) -> None:
    """A look-up that is under way may have read what was so before the change."""
    ada = await make.user()
    given = await credential(ada)
    transaction = make.sql.transaction()
    await transaction.start()
    await make.sql.execute("lock table users in access exclusive mode")
    look_up = asyncio.ensure_future(sessions.viewer(given))
    async with asyncio.timeout(4):
        while not await make.sql.fetchval(
            "select true from pg_locks where not granted and relation = 'users'::regclass"
        ):
            assert not look_up.done()
    sessions.forget(ada.id + others)
    await transaction.rollback()
    assert await look_up == ada.viewer
    await end_all(make)
    with pytest.raises(UnauthorizedError):
        await sessions.viewer(given)


async def test_a_key_that_is_remembered_expires_all_the_same(
    database: Database, sessions: Sessions, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, soon = await make.user(), datetime.now(UTC) + timedelta(minutes=5)
    await q.accounts.create_key(
        database, user_id=ada.id, name="x", hash=hashed(KEY), read_only=False, expires_at=soon, most=9
    )
    assert await sessions.viewer(KEY) == ada.viewer
    monkeypatch.setattr(module, "time", SimpleNamespace(time=soon.timestamp))
    with pytest.raises(UnauthorizedError, match="expired"):
        await sessions.viewer(KEY)


async def test_what_is_remembered_of_a_session_never_outlives_the_token(sessions: Sessions, make: Factory) -> None:
    ada = await make.user()
    session_id = await make.session(ada.id)
    good, old = Tokens(("k" * 32,), minutes=15), Tokens(("k" * 32,), minutes=-15)
    assert await sessions.viewer(good.issue(user_id=ada.id, role="user", session_id=session_id)) == ada.viewer
    with pytest.raises(UnauthorizedError, match="expired"):
        await sessions.viewer(old.issue(user_id=ada.id, role="user", session_id=session_id))


async def test_a_session_speaks_for_nobody_but_its_account(
    sessions: Sessions, listening: Listening, make: Factory
) -> None:
    ada, bob = await make.user(), await make.user()
    session_id = await make.session(ada.id)
    await sessions.viewer(TOKENS.issue(user_id=ada.id, role="user", session_id=session_id))
    for listening.is_current in (True, False):
        with pytest.raises(UnauthorizedError):
            await sessions.viewer(TOKENS.issue(user_id=bob.id, role="user", session_id=session_id))


@pytest.mark.parametrize("given", ["", "tm_", KEY, "x", "tm_\0", "tm_\N{CYRILLIC SMALL LETTER A}"])
async def test_what_is_neither_token_nor_key_is_refused_and_not_remembered(sessions: Sessions, given: str) -> None:
    with pytest.raises(UnauthorizedError):
        await sessions.viewer(given)
    assert not sessions._sessions
    assert not sessions._keys


async def test_no_more_is_remembered_than_the_most(
    database: Database, make: Factory, credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Sessions(database, TOKENS, is_current=lambda: True)
    assert many._sessions.maxsize == many._keys.maxsize == 50_000
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    few = Sessions(database, TOKENS, is_current=lambda: True)
    users = [await make.user() for _ in range(3)]
    given = [await credential(user) for user in users]
    for one in given:
        await few.viewer(one)
    assert len(few._sessions) + len(few._keys) == 2
    await end_all(make)
    assert [await few.viewer(one) for one in given[1:]] == [user.viewer for user in users[1:]]
    with pytest.raises(UnauthorizedError):
        await few.viewer(given[0])


async def test_who_is_over_is_asked_of_the_database(database: Database, sessions: Sessions, make: Factory) -> None:
    ada, bob, eve, root = await make.user(), await make.user(), await make.user(), await make.admin()
    row = await q.accounts.create_key(
        database, user_id=root.id, name="x", hash=hashed(KEY), read_only=False, expires_at=None, most=9
    )
    assert row is not None
    machine = Viewer(root.id, True, key_id=row["id"], expires_at=math.inf)
    viewers = [one.viewer for one in (ada, bob, eve, root)] + [machine]
    assert await sessions.over(viewers) == []
    assert await sessions.over([]) == []
    assert await sessions.over([Viewer(ada.id, False)]) == [Viewer(ada.id, False)]  # neither session nor key
    await make.sql.execute("update users set role = 'admin' where id = $1", ada.id)
    await make.sql.execute("update users set active = false where id = $1", bob.id)
    await make.sql.execute("delete from sessions where user_id = $1", eve.id)
    assert await sessions.over(viewers) == viewers[:3]
    assert await sessions.over([replace(ada.viewer, is_admin=True)]) == []
    async with database.connection() as connection:
        assert await sessions.over([machine, bob.viewer], db=connection) == [bob.viewer]
    await make.sql.execute("delete from api_keys")
    assert await sessions.over([machine]) == [machine]
    with pytest.raises(UnauthorizedError):
        await sessions.present(machine)


async def test_a_use_of_a_key_is_written_once_by_a_process_that_remembers_it(
    database: Database, sessions: Sessions, listening: Listening, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    for key in (KEY, KEY + "other"):
        await q.accounts.create_key(
            database, user_id=ada.id, name="x", hash=hashed(key), read_only=False, expires_at=None, most=9
        )
    written: list[int] = []
    arguments = Statement._arguments

    def counted(self: Statement, values: dict[str, Any]) -> list[Any]:
        if self.name == "accounts.note_key_use":
            written.append(values["key_id"])
        return arguments(self, values)

    monkeypatch.setattr(Statement, "_arguments", counted)
    for listening.is_current in (True, False):
        for key in (KEY, KEY + "other") * 3:
            await sessions.viewer(key)
    sessions.forget()
    await sessions.viewer(KEY)
    assert sessions._writer
    await asyncio.wait_for(sessions._writer, 10)
    assert len(written) == len(set(written)) == 2
    assert module.NOTED_SECONDS > 3600
