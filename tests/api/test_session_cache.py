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

from service.accounts import api_keys, session_cache
from service.accounts.session_cache import SessionCache
from service.accounts.tokens import Tokens, hash_secret
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
def sessions(database: Database, listening: Listening) -> SessionCache:
    """What a process remembers whose listener hears of all changes, until a test says otherwise."""
    return SessionCache(database, TOKENS, is_current=listening)


@pytest.fixture(params=["token", "key"])
def credential(request: pytest.FixtureRequest, database: Database, make: Factory) -> Credential:
    """Makes what an account comes with: a token of its session, or an API key."""

    async def of(user: User) -> str:
        if request.param == "token":
            return TOKENS.issue(user_id=user.id, role="user", session_id=await make.session(user.id))
        key = KEY + str(user.id)
        await q.accounts.create_key(
            database, user_id=user.id, name="x", hash=hash_secret(key), read_only=True, expires_at=LATER, max_keys=9
        )
        return key

    return of


async def end_all(make: Factory) -> None:
    await make.sql.execute("delete from sessions; delete from api_keys")


async def test_a_session_and_a_key_have_the_current_role_of_their_account(
    database: Database, sessions: SessionCache, make: Factory
) -> None:
    ada = await make.user()
    session_id = await make.session(ada.id)
    token = TOKENS.issue(user_id=ada.id, role="user", session_id=session_id)
    await make.sql.execute("update users set role = 'admin'")
    row = await q.accounts.create_key(
        database, user_id=ada.id, name="x", hash=hash_secret(KEY), read_only=True, expires_at=LATER, max_keys=9
    )
    assert row is not None
    by_token, by_key = await sessions.authenticate(token), await sessions.authenticate(KEY)
    assert vars(by_token) == vars(Viewer(ada.id, True, session_id=session_id, expires_at=by_token.expires_at))
    assert time.time() < by_token.expires_at <= time.time() + 900
    assert vars(by_key) == vars(Viewer(ada.id, True, read_only=True, key_id=row["id"], expires_at=LATER.timestamp()))


async def test_cached_sessions_are_trusted_only_while_the_listener_is_connected(
    sessions: SessionCache, listening: Listening, make: Factory, credential: Credential
) -> None:
    ada = await make.user()
    bearer = await credential(ada)
    assert await sessions.authenticate(bearer) == ada.viewer
    await end_all(make)  # and nobody has told this process
    assert await sessions.authenticate(bearer) == ada.viewer
    listening.is_current = False
    with pytest.raises(UnauthorizedError):
        await sessions.authenticate(bearer)


async def test_a_cache_that_was_never_enabled_reads_the_database_each_time(
    database: Database, make: Factory, credential: Credential
) -> None:
    deaf, bearer = SessionCache(database, TOKENS, is_current=lambda: False), await credential(await make.user())
    await deaf.authenticate(bearer)
    await end_all(make)
    with pytest.raises(UnauthorizedError):
        await deaf.authenticate(bearer)


@pytest.mark.parametrize("all_accounts", [False, True])
async def test_invalidated_sessions_are_read_again(
    sessions: SessionCache, make: Factory, credential: Credential, all_accounts: bool
) -> None:
    ada, bob = await make.user(), await make.user()
    hers, his = await credential(ada), await credential(bob)
    for bearer in (hers, his):
        await sessions.authenticate(bearer)
    await end_all(make)
    sessions.forget(None if all_accounts else ada.id)
    with pytest.raises(UnauthorizedError):
        await sessions.authenticate(hers)
    if all_accounts:
        with pytest.raises(UnauthorizedError):
            await sessions.authenticate(his)
    else:
        assert await sessions.authenticate(his) == bob.viewer


@pytest.mark.parametrize("others", [False, True])
async def test_a_row_read_before_an_invalidation_is_not_cached(
    sessions: SessionCache, make: Factory, credential: Credential, others: bool
) -> None:
    """A lookup in progress may have read the row before the change."""
    ada = await make.user()
    bearer = await credential(ada)
    transaction = make.sql.transaction()
    await transaction.start()
    await make.sql.execute("lock table users in access exclusive mode")
    pending = asyncio.ensure_future(sessions.authenticate(bearer))
    async with asyncio.timeout(4):
        while not await make.sql.fetchval(
            "select true from pg_locks where not granted and relation = 'users'::regclass"
        ):
            assert not pending.done()
    sessions.forget(ada.id + others)
    await transaction.rollback()
    assert await pending == ada.viewer
    await end_all(make)
    with pytest.raises(UnauthorizedError):
        await sessions.authenticate(bearer)


async def test_a_cached_key_expires_on_time(
    database: Database, sessions: SessionCache, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, soon = await make.user(), datetime.now(UTC) + timedelta(minutes=5)
    await q.accounts.create_key(
        database, user_id=ada.id, name="x", hash=hash_secret(KEY), read_only=False, expires_at=soon, max_keys=9
    )
    assert await sessions.authenticate(KEY) == ada.viewer
    monkeypatch.setattr(session_cache, "time", SimpleNamespace(time=soon.timestamp))
    with pytest.raises(UnauthorizedError, match="expired"):
        await sessions.authenticate(KEY)


async def test_a_cached_session_does_not_outlive_its_token(sessions: SessionCache, make: Factory) -> None:
    ada = await make.user()
    session_id = await make.session(ada.id)
    good, old = Tokens(("k" * 32,), minutes=15), Tokens(("k" * 32,), minutes=-15)
    assert await sessions.authenticate(good.issue(user_id=ada.id, role="user", session_id=session_id)) == ada.viewer
    with pytest.raises(UnauthorizedError, match="expired"):
        await sessions.authenticate(old.issue(user_id=ada.id, role="user", session_id=session_id))


async def test_a_session_identifies_only_its_own_account(
    sessions: SessionCache, listening: Listening, make: Factory
) -> None:
    ada, bob = await make.user(), await make.user()
    session_id = await make.session(ada.id)
    await sessions.authenticate(TOKENS.issue(user_id=ada.id, role="user", session_id=session_id))
    for listening.is_current in (True, False):
        with pytest.raises(UnauthorizedError):
            await sessions.authenticate(TOKENS.issue(user_id=bob.id, role="user", session_id=session_id))


@pytest.mark.parametrize("bearer", ["", "tm_", KEY, "x", "tm_\0", "tm_\N{CYRILLIC SMALL LETTER A}"])
async def test_an_invalid_credential_is_refused_and_not_cached(sessions: SessionCache, bearer: str) -> None:
    with pytest.raises(UnauthorizedError):
        await sessions.authenticate(bearer)
    assert not sessions._sessions
    assert not sessions._keys


async def test_the_cache_keeps_no_more_entries_than_its_maximum(
    database: Database, make: Factory, credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert session_cache.MAX_CACHED == 50_000
    monkeypatch.setattr(session_cache, "MAX_CACHED", 2)
    few = SessionCache(database, TOKENS, is_current=lambda: True)
    users = [await make.user() for _ in range(3)]
    bearer = [await credential(user) for user in users]
    for one in bearer:
        await few.authenticate(one)
    assert len(few._sessions) + len(few._keys) == 2
    await end_all(make)
    assert [await few.authenticate(one) for one in bearer[1:]] == [user.viewer for user in users[1:]]
    with pytest.raises(UnauthorizedError):
        await few.authenticate(bearer[0])


async def test_ended_credentials_are_checked_in_the_database(
    database: Database, sessions: SessionCache, make: Factory
) -> None:
    ada, bob, eve, root = await make.user(), await make.user(), await make.user(), await make.admin()
    row = await q.accounts.create_key(
        database, user_id=root.id, name="x", hash=hash_secret(KEY), read_only=False, expires_at=None, max_keys=9
    )
    assert row is not None
    machine = Viewer(root.id, True, key_id=row["id"], expires_at=math.inf)
    viewers = [one.viewer for one in (ada, bob, eve, root)] + [machine]
    assert await sessions.find_ended(viewers) == []
    assert await sessions.find_ended([]) == []
    assert await sessions.find_ended([Viewer(ada.id, False)]) == [Viewer(ada.id, False)]  # neither session nor key
    await make.sql.execute("update users set role = 'admin' where id = $1", ada.id)
    await make.sql.execute("update users set active = false where id = $1", bob.id)
    await make.sql.execute("delete from sessions where user_id = $1", eve.id)
    assert await sessions.find_ended(viewers) == viewers[:3]
    assert await sessions.find_ended([replace(ada.viewer, is_admin=True)]) == []
    async with database.connection() as connection:
        assert await sessions.find_ended([machine, bob.viewer], db=connection) == [bob.viewer]
    await make.sql.execute("delete from api_keys")
    assert await sessions.find_ended([machine]) == [machine]
    with pytest.raises(UnauthorizedError):
        await sessions.revalidate(machine)


async def test_a_process_with_a_cached_key_writes_its_use_once(
    database: Database, sessions: SessionCache, listening: Listening, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    for key in (KEY, KEY + "other"):
        await q.accounts.create_key(
            database, user_id=ada.id, name="x", hash=hash_secret(key), read_only=False, expires_at=None, max_keys=9
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
            await sessions.authenticate(key)
    sessions.forget()
    await sessions.authenticate(KEY)
    assert sessions._key_uses._task
    await asyncio.wait_for(sessions._key_uses._task, 10)
    assert len(written) == len(set(written)) == 2
    assert api_keys.NOTED_SECONDS > 3600
