"""The statements of `sql/accounts/` over sessions, API keys and tickets: what is good, how long, and for whom."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import Any

import pytest

from service.core.errors import InvalidError, UnauthorizedError
from service.core.validation import LAST_MOMENT
from service.db.pool import Database, Executor
from service.db.queries import q
from tests.sql.conftest import Session, Sessions
from tests.support.factories import Factory, User

LATER = datetime(2999, 1, 1, tzinfo=UTC)
SECONDS = 10.0


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@dataclass(frozen=True)
class Begun:
    """A session: its id, its first refresh token, and what derives the next ones."""

    id: int
    token: bytes
    secret: bytes


async def begin(database: Database, user: User, *, days: int = 30, max_sessions: int = 100) -> Begun:
    token, secret = token_bytes(32), token_bytes(32)
    current_hash = await q.accounts.password(database, user_id=user.id)
    row = await q.accounts.open_session(
        database,
        user_id=user.id,
        verified_hash=current_hash,
        refresh_hash=sha256(token),
        secret=secret,
        days=days,
        client_address="192.0.2.1",
        user_agent="tests",
        max_sessions=max_sessions,
    )
    assert row is not None
    return Begun(row["id"], token, secret)


async def log_in(executor: Executor, user: User, current_hash: str) -> Any:
    return await q.accounts.open_session(
        executor,
        user_id=user.id,
        verified_hash=current_hash,
        refresh_hash=token_bytes(32),
        secret=b"",
        days=1,
        client_address=None,
        user_agent=None,
        max_sessions=100,
    )


async def key(database: Database, user: User, *, max_keys: int = 100, **values: Any) -> Any:
    arguments = {"name": "nightly", "hash": token_bytes(32), "read_only": False, "expires_at": None, **values}
    return await q.accounts.create_key(database, user_id=user.id, max_keys=max_keys, **arguments)


async def ticket(database: Database, user: User, **values: Any) -> bytes:
    arguments = {"hash": token_bytes(32), "access_expires_at": None, "session_id": None, "key_id": None, **values}
    await q.accounts.create_ticket(database, user_id=user.id, **arguments)
    return bytes(arguments["hash"])


async def of_user(make: Factory, user: User) -> list[int]:
    rows = await make.sql.fetch("select id from sessions where user_id = $1 order by id", user.id)
    return [row["id"] for row in rows]


async def test_a_session_is_kept_as_hashes_with_where_it_began(database: Database, make: Factory) -> None:
    ada = await make.user()
    begun = await begin(database, ada, days=7)
    row = await make.sql.fetchrow("select *, now() from sessions where id = $1", begun.id)
    assert row is not None
    assert (row["user_id"], row["client_address"], row["user_agent"]) == (ada.id, "192.0.2.1", "tests")
    assert (row["refresh_hash"], row["previous_hash"]) == (sha256(begun.token), None)
    assert row["created_at"] == row["last_used_at"]
    assert row["expires_at"] - row["created_at"] == timedelta(days=7)
    assert row["now"] - row["created_at"] < timedelta(minutes=1)


async def test_a_missing_account_opens_no_session(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute("delete from users")
    assert await log_in(database, ada, "any") is None
    with pytest.raises(UnauthorizedError):
        await key(database, ada)
    with pytest.raises(UnauthorizedError):
        await ticket(database, ada)


async def waiting(make: Factory, one: asyncio.Future[Any]) -> None:
    """Wait until a statement waits for another's lock."""
    async with asyncio.timeout(4):
        while not await make.sql.fetchval("select true from pg_locks where not granted"):
            assert not one.done()


async def test_a_log_in_under_way_does_not_outlive_a_change_of_the_password(database: Database, make: Factory) -> None:
    """Its password was verified, which takes long, before the change; the session begins before, or not at all."""
    ada = await make.user()
    current_hash = await q.accounts.password(database, user_id=ada.id)
    change: dict[str, Any] = {"user_id": ada.id, "kept_session_id": ada.viewer.session_id}
    async with database.connection() as connection:
        async with connection.transaction():
            assert await log_in(connection, ada, current_hash) is not None
            changed = asyncio.ensure_future(
                q.accounts.set_password(database, **change, verified_hash=current_hash, password_hash="new")
            )
            await waiting(make, changed)
        assert await changed == 1
        assert await of_user(make, ada) == [ada.viewer.session_id]
        async with connection.transaction():
            assert await q.accounts.set_password(connection, **change, verified_hash="new", password_hash="newer") == 1
            begun = asyncio.ensure_future(log_in(database, ada, "new"))
            await waiting(make, begun)
        assert await begun is None
    assert await log_in(database, ada, "newer") is not None


@pytest.mark.parametrize("change", ["password_hash = 'by hand'", "active = false"])
async def test_a_dbas_change_ends_sessions_too(database: Database, make: Factory, change: str) -> None:
    ada, bob = await make.user(), await make.user()
    current_hash = await q.accounts.password(database, user_id=ada.id)
    await make.sql.execute(f"update users set {change} where id = $1", ada.id)
    assert await of_user(make, ada) == []
    assert await of_user(make, bob) == [bob.viewer.session_id]
    assert await log_in(database, ada, current_hash) is None


async def test_the_oldest_sessions_above_the_maximum_end(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    begun = [await begin(database, ada, max_sessions=3) for _ in range(5)]
    assert await of_user(make, ada) == [one.id for one in begun[2:]]
    last = await begin(database, ada, max_sessions=1)
    assert await of_user(make, ada) == [last.id]
    assert await of_user(make, bob) == [bob.viewer.session_id]


async def test_own_sessions_are_listed_newest_first(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    begun = [await begin(database, ada) for _ in range(3)]
    await make.sql.execute("update sessions set expires_at = now() where id = $1", begun[1].id)
    rows = await q.accounts.sessions(database, user_id=ada.id, row_limit=100)
    assert [row["id"] for row in rows] == [begun[2].id, begun[0].id, ada.viewer.session_id]
    assert dict(rows[0]).keys() == {"id", "created_at", "last_used_at", "expires_at", "client_address", "user_agent"}
    assert [row["id"] for row in await q.accounts.sessions(database, user_id=ada.id, row_limit=1)] == [begun[2].id]
    assert [row["id"] for row in await q.accounts.sessions(database, user_id=bob.id, row_limit=100)] == [
        bob.viewer.session_id
    ]


async def test_a_used_refresh_token_is_replaced_by_its_successor(database: Database, make: Factory) -> None:
    ada = await make.admin()
    begun = await begin(database, ada, days=1)
    await make.sql.execute("update sessions set created_at = now() - interval '1 day', last_used_at = created_at")
    row = await q.accounts.rotate(database, refresh_token=begun.token, days=30)
    assert row is not None
    successor = sha256(begun.secret + begun.token)
    assert dict(row) == {"id": begun.id, "user_id": ada.id, "role": "admin", "successor": successor}
    kept = await make.sql.fetchrow("select *, now() from sessions where id = $1", begun.id)
    assert kept is not None
    assert (kept["refresh_hash"], kept["previous_hash"]) == (sha256(successor), sha256(begun.token))
    assert kept["now"] - kept["last_used_at"] < timedelta(minutes=1)
    assert kept["expires_at"] - kept["last_used_at"] == timedelta(days=30)
    assert await q.accounts.rotate(database, refresh_token=begun.token, days=30) is None
    assert await q.accounts.rotate(database, refresh_token=successor, days=30) is not None


async def test_the_last_used_token_returns_its_successor_for_some_seconds(database: Database, make: Factory) -> None:
    ada = await make.user()
    begun = await begin(database, ada)
    assert await q.accounts.recent_successor(database, refresh_token=begun.token, seconds=SECONDS) is None
    row = await q.accounts.rotate(database, refresh_token=begun.token, days=30)
    assert row is not None
    for back, recalled in (("0 s", dict(row)), ("9 s", dict(row)), ("11 s", None)):
        await make.sql.execute(f"update sessions set last_used_at = now() - interval '{back}' where id = {begun.id}")
        again = await q.accounts.recent_successor(database, refresh_token=begun.token, seconds=SECONDS)
        assert (again and dict(again)) == recalled
    assert await q.accounts.rotate(database, refresh_token=row["successor"], days=30) is not None
    assert await q.accounts.recent_successor(database, refresh_token=begun.token, seconds=SECONDS) is None
    assert await q.accounts.recent_successor(database, refresh_token=row["successor"], seconds=SECONDS) is not None
    assert await q.accounts.recent_successor(database, refresh_token=token_bytes(32), seconds=SECONDS) is None


async def test_one_of_fifty_concurrent_uses_rotates_and_all_get_the_same_successor(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    begun = await begin(database, ada)
    token = begun.token
    for _ in range(5):
        rotated = await asyncio.gather(*(q.accounts.rotate(database, refresh_token=token, days=30) for _ in range(50)))
        recalled = await asyncio.gather(
            *(q.accounts.recent_successor(database, refresh_token=token, seconds=SECONDS) for _ in range(50))
        )
        (successor,) = {row["successor"] for row in rotated if row is not None}
        assert len([row for row in rotated if row is not None]) == 1
        assert [row and row["successor"] for row in recalled] == [successor] * 50
        token = successor
    assert await of_user(make, ada) == [ada.viewer.session_id, begun.id]


async def test_fifty_clients_of_one_token_each_find_a_successor_whichever_is_first(
    database: Database, make: Factory
) -> None:
    """Each asks for its own, one statement after the other, while others are anywhere between the two."""
    begun = await begin(database, await make.user())

    async def refresh() -> Any:
        used: dict[str, Any] = {"refresh_token": begun.token}
        return await q.accounts.rotate(database, **used, days=30) or await q.accounts.recent_successor(
            database, **used, seconds=SECONDS
        )

    rows = await asyncio.gather(*(refresh() for _ in range(50)))
    assert [row and row["successor"] for row in rows] == [sha256(begun.secret + begun.token)] * 50


async def test_a_rotation_and_a_sessions_end_at_once_leave_no_session(database: Database, make: Factory) -> None:
    ada = await make.user()
    for _ in range(10):
        begun = await begin(database, ada)
        await asyncio.gather(
            q.accounts.rotate(database, refresh_token=begun.token, days=30),
            q.accounts.end_session(database, session_id=begun.id, user_id=ada.id),
        )
        assert begun.id not in await of_user(make, ada)


async def test_a_session_whose_token_was_reused_ends_and_no_other(database: Database, make: Factory) -> None:
    ada = await make.user()
    begun = await begin(database, ada)
    assert await q.accounts.end_reused(database, session_id=begun.id) == 1
    assert await q.accounts.end_reused(database, session_id=begun.id) == 0
    assert await of_user(make, ada) == [ada.viewer.session_id]


async def test_only_ones_own_session_or_key_is_ended(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    begun, made, kept = await begin(database, ada), await key(database, ada), await key(database, ada)
    assert await q.accounts.end_session(database, session_id=begun.id, user_id=bob.id) == 0
    assert await q.accounts.revoke_key(database, key_id=made["id"], user_id=bob.id) == 0
    assert await q.accounts.end_session(database, session_id=begun.id, user_id=ada.id) == 1
    assert await q.accounts.revoke_key(database, key_id=made["id"], user_id=ada.id) == 1
    assert await of_user(make, ada) == [ada.viewer.session_id]
    assert await make.sql.fetchval("select array_agg(id) from api_keys") == [kept["id"]]


async def test_expired_sessions_are_deleted_oldest_first(database: Database, make: Factory) -> None:
    ada = await make.user()
    begun = [await begin(database, ada) for _ in range(4)]
    for hours, one in zip((1, 3, 2, -1), begun, strict=True):
        await make.sql.execute(
            "update sessions set expires_at = now() - $2::interval where id = $1", one.id, timedelta(hours=hours)
        )
    assert await q.accounts.expire_sessions(database, row_limit=2) == 2
    assert await of_user(make, ada) == [ada.viewer.session_id, begun[0].id, begun[3].id]
    assert await q.accounts.expire_sessions(database, row_limit=2) == 1
    assert await q.accounts.expire_sessions(database, row_limit=2) == 0
    assert await of_user(make, ada) == [ada.viewer.session_id, begun[3].id]


async def test_active_credentials_have_the_current_role(database: Database, make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    ada_session, root_session = await make.session(ada.id), await make.session(root.id)
    reader = await key(database, ada, read_only=True)
    machine = await key(database, root, expires_at=LATER)
    rows = await q.accounts.active_credentials(
        database,
        session_ids=[ada_session, root_session, 0],
        key_ids=[reader["id"], machine["id"], 0],
    )
    assert {tuple(dict(row).values()) for row in rows} == {
        ("session", ada_session, ada.id, "user", False),
        ("session", root_session, root.id, "admin", False),
        ("key", reader["id"], ada.id, "user", True),
        ("key", machine["id"], root.id, "admin", False),
    }
    await make.sql.execute("update users set role = 'admin' where id = $1", ada.id)
    (row,) = await q.accounts.active_credentials(database, session_ids=[ada_session], key_ids=[])
    assert row["role"] == "admin"
    assert await q.accounts.active_credentials(database, session_ids=[], key_ids=[]) == []


OVER = {
    "expired": "update sessions set expires_at = now(); update api_keys set expires_at = now()",
    # Without the trigger that ends its sessions: the statements hold by themselves.
    "inactive": "begin; set local session_replication_role = replica; update users set active = false; commit",
    "ended": "delete from sessions; delete from api_keys",
    "gone": "delete from users",
}


@pytest.mark.parametrize("end", OVER.values(), ids=OVER.keys())
async def test_ended_sessions_keys_and_tickets_return_nothing(database: Database, make: Factory, end: str) -> None:
    ada = await make.user()
    begun, fresh, rotated = [await begin(database, ada) for _ in range(3)]
    assert await q.accounts.rotate(database, refresh_token=rotated.token, days=30)
    made = await key(database, ada, hash=b"hash", expires_at=LATER)

    async def active_rows(token: bytes) -> list[Any]:
        return [
            await q.accounts.recent_successor(database, refresh_token=rotated.token, seconds=SECONDS),
            await q.accounts.get_key(database, hash=b"hash"),
            await q.accounts.rotate(database, refresh_token=token, days=30),
            *await q.accounts.active_credentials(database, session_ids=[begun.id, rotated.id], key_ids=[made["id"]]),
        ]

    before = await active_rows(begun.token)
    assert len(before) == 6
    assert None not in before
    await make.sql.execute(end)
    assert await active_rows(fresh.token) == [None, None, None]


async def test_a_key_is_created_and_found_by_its_hash(database: Database, make: Factory) -> None:
    ada, root = await make.user(), await make.admin()
    row = await key(database, ada, hash=b"one", name="nightly", read_only=True, expires_at=LATER)
    assert dict(row).keys() == {"id", "name", "read_only", "created_at", "expires_at", "last_used_at"}
    assert (row["name"], row["read_only"], row["expires_at"]) == ("nightly", True, LATER)
    await key(database, root, hash=b"other")
    found = await q.accounts.get_key(database, hash=b"one")
    assert found is not None
    assert dict(found) == {
        "id": row["id"],
        "read_only": True,
        "expires_at": LATER,
        "user_id": ada.id,
        "role": "user",
    }
    other = await q.accounts.get_key(database, hash=b"other")
    assert other is not None
    assert (other["user_id"], other["role"], other["read_only"], other["expires_at"]) == (root.id, "admin", False, None)
    assert await q.accounts.get_key(database, hash=b"none") is None


async def test_the_last_use_of_a_key_is_written_once_an_hour_or_less(database: Database, make: Factory) -> None:
    ada = await make.user()
    one, other = await key(database, ada, hash=b"one"), await key(database, ada, hash=b"other")
    assert (one["last_used_at"], other["last_used_at"]) == (None, None)
    at_once = [q.accounts.note_key_use(database, key_id=one["id"]) for _ in range(20)]
    assert sum(await asyncio.gather(*at_once)) == 1
    for minutes, written in ((59, 0), (2, 1), (0, 0)):
        await make.sql.execute(f"update api_keys set last_used_at = last_used_at - interval '{minutes} min'")
        assert await q.accounts.note_key_use(database, key_id=one["id"]) == written
    rows = {row["id"]: row["last_used_at"] for row in await q.accounts.list_keys(database, user_id=ada.id, row_limit=9)}
    assert rows[other["id"]] is None
    last = rows[one["id"]]
    assert last is not None
    assert datetime.now(UTC) - last < timedelta(minutes=1)
    assert await q.accounts.note_key_use(database, key_id=0) == 0


async def test_a_key_above_the_maximum_is_not_created(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    made = [await key(database, ada, max_keys=2) for _ in range(3)]
    assert [row is not None for row in made] == [True, True, False]
    assert await key(database, bob, max_keys=2) is not None
    assert await q.accounts.revoke_key(database, key_id=made[0]["id"], user_id=ada.id) == 1
    assert await key(database, ada, max_keys=2) is not None


@pytest.mark.parametrize(("value", "pointer"), [({"name": " "}, "/name"), ({"expires_at": LAST_MOMENT}, "/expires_at")])
async def test_a_key_that_the_schema_refuses_is_invalid(
    database: Database, make: Factory, value: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await key(database, await make.user(), **value)
    assert refused.value.pointer == pointer


async def test_own_keys_are_listed_newest_first_without_their_secrets(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    made = [await key(database, ada, name=name, expires_at=when) for name, when in (("a", None), ("b", LATER))]
    await key(database, bob)
    rows = await q.accounts.list_keys(database, user_id=ada.id, row_limit=100)
    assert [dict(row) for row in rows] == [dict(row) for row in reversed(made)]
    assert len(await q.accounts.list_keys(database, user_id=ada.id, row_limit=1)) == 1


async def test_a_ticket_is_used_once_for_the_credential_that_created_it(database: Database, make: Factory) -> None:
    root = await make.admin()
    made = await ticket(database, root, access_expires_at=LATER, session_id=7)
    rows = await asyncio.gather(*(q.accounts.use_ticket(database, hash=made) for _ in range(20)))
    (row,) = [dict(row) for row in rows if row is not None]
    assert row == {"id": root.id, "role": "admin", "access_expires_at": LATER, "session_id": 7, "key_id": None}
    row = await q.accounts.use_ticket(database, hash=await ticket(database, root, key_id=8))  # type: ignore[assignment]
    assert (row["access_expires_at"], row["session_id"], row["key_id"]) == (None, None, 8)
    assert await make.sql.fetchval("select count(*) from tickets") == 0


@pytest.mark.parametrize(
    "end", ["update tickets set expires_at = now()", "update users set active = false", "delete from users"]
)
async def test_an_expired_or_revoked_ticket_is_refused(database: Database, make: Factory, end: str) -> None:
    made = await ticket(database, await make.user())
    await make.sql.execute(end)
    assert await q.accounts.use_ticket(database, hash=made) is None
    assert await make.sql.fetchval("select count(*) from tickets") == 0


async def test_expired_tickets_are_deleted_when_the_next_is_created(database: Database, make: Factory) -> None:
    ada = await make.user()
    old, good = await ticket(database, ada), await ticket(database, ada)
    await make.sql.execute("update tickets set expires_at = now() - interval '1 s' where hash = $1", old)
    row = await q.accounts.create_ticket(
        database, hash=b"new", user_id=ada.id, access_expires_at=None, session_id=None, key_id=None
    )
    assert row["expires_at"] is not None
    assert timedelta(seconds=20) < row["expires_at"] - datetime.now(UTC) < timedelta(seconds=40)
    assert {one["hash"] for one in await make.sql.fetch("select hash from tickets")} == {good, b"new"}


@pytest.fixture
async def told(make: Factory, session: Sessions) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Return a function that returns the notifications of the channel `accounts` since its last call."""
    listening: Session = await session()
    payloads: asyncio.Queue[str] = asyncio.Queue()

    def hear(_connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        payloads.put_nowait(payload)

    await listening.add_listener("accounts", hear)

    async def since() -> list[str]:
        await make.sql.execute("notify accounts, '0'")
        heard: list[str] = []
        async with asyncio.timeout(10):
            while (payload := await payloads.get()) != "0":
                heard.append(payload)
        return heard

    yield since
    await listening.remove_listener("accounts", hear)


@pytest.mark.parametrize(
    "change",
    [
        "delete from sessions where user_id = $1",
        "delete from api_keys where user_id = $1",
        "update api_keys set expires_at = now() where user_id = $1",
        "update api_keys set read_only = true where user_id = $1",
        "update api_keys set hash = 'other' where user_id = $1",
        "update users set role = 'admin' where id = $1",
        "update users set active = false where id = $1",
        "update users set password_hash = 'x' where id = $1",
        "delete from users where id = $1",
    ],
)
async def test_a_change_that_revokes_access_notifies_with_the_account_id(
    database: Database, make: Factory, told: Callable[[], Awaitable[list[str]]], change: str
) -> None:
    ada = await make.user()
    await key(database, ada)
    assert await told() == []
    assert await make.sql.execute(change, ada.id) in {"UPDATE 1", "DELETE 1"}
    assert set(await told()) == {str(ada.id)}


async def test_a_change_that_revokes_nothing_sends_no_notification(
    database: Database, make: Factory, told: Callable[[], Awaitable[list[str]]]
) -> None:
    ada = await make.user()
    begun = await begin(database, ada)
    made = await key(database, ada)
    assert await q.accounts.note_key_use(database, key_id=made["id"]) == 1
    await q.accounts.rotate(database, refresh_token=begun.token, days=30)
    await q.accounts.use_ticket(database, hash=await ticket(database, ada))
    await make.sql.execute(
        "update users set username = 'other', password_hash = password_hash, role = role, active = active"
    )
    await make.task(ada)
    assert await told() == []


async def test_a_rolled_back_end_sends_no_notification(make: Factory, told: Callable[[], Awaitable[list[str]]]) -> None:
    await make.user()
    await make.sql.execute("begin; delete from sessions; rollback")
    assert await told() == []
