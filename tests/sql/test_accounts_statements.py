"""The statements of `sql/accounts/`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.accounts.users import AFTER_USERNAMES
from service.core.errors import ConflictError, InvalidError, UnauthorizedError
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory, User


async def test_a_new_account_is_returned_without_its_password(database: Database, make: Factory) -> None:
    row: dict[str, Any] = dict(await q.accounts.create(database, username="Ada", password_hash="kept", role="user"))
    assert row.keys() == {"id", "username", "role", "created_at"}
    assert (row["username"], row["role"]) == ("Ada", "user")
    read = await q.accounts.get(database, user_id=row["id"])
    assert read is not None
    assert dict(read) == row
    assert await make.sql.fetchval("select password_hash from users") == "kept"


async def test_a_missing_account_has_no_row(database: Database, make: Factory) -> None:
    assert await q.accounts.get(database, user_id=0) is None
    assert await q.accounts.credentials(database, username="nobody") is None


async def test_exactly_one_of_many_accounts_with_one_name_is_created(database: Database, make: Factory) -> None:
    names = ["ada", "Ada", "ADA", "aDa"] * 4
    made = await asyncio.gather(
        *(q.accounts.create(database, username=name, password_hash="", role="user") for name in names),
        return_exceptions=True,
    )
    refused = [one for one in made if isinstance(one, BaseException)]
    assert len(refused) == 15
    assert all(isinstance(one, ConflictError) for one in refused)
    assert await make.sql.fetchval("select count(*) from users") == 1


@pytest.mark.parametrize("spelling", ["Ada.Lovelace", "ada.lovelace", "ADA.LOVELACE"])
async def test_credentials_are_found_without_regard_to_case(database: Database, make: Factory, spelling: str) -> None:
    ada = await make.user(username="Ada.Lovelace")
    await make.user(username="Ada_Lovelace")
    row = await q.accounts.credentials(database, username=spelling)
    assert row is not None
    assert (row["id"], row["role"]) == (ada.id, "user")
    assert row["password_hash"].startswith("$2b$")


@pytest.mark.parametrize("name", ["ada%", "ad_", "ada' or true --", "", "ada "])
async def test_a_name_is_no_pattern(database: Database, make: Factory, name: str) -> None:
    await make.user(username="ada")
    assert await q.accounts.credentials(database, username=name) is None


async def test_whether_there_is_an_administrator(database: Database, make: Factory) -> None:
    await make.user()
    assert await q.accounts.has_admin(database) is False
    await make.admin()
    assert await q.accounts.has_admin(database) is True


async def test_the_first_administrator_is_made_once(database: Database, make: Factory) -> None:
    first: dict[str, Any] = {"username": "root", "password_hash": "kept"}
    assert await q.accounts.create_first_admin(database, **first) == 1
    assert await q.accounts.create_first_admin(database, **first) == 0
    assert await q.accounts.create_first_admin(database, username="other", password_hash="") == 0
    rows = await make.sql.fetch("select username, password_hash, role from users")
    assert [tuple(row) for row in rows] == [("root", "kept", "admin")]


async def test_replicas_that_start_at_once_make_one_administrator(database: Database, make: Factory) -> None:
    made = await asyncio.gather(
        *(q.accounts.create_first_admin(database, username="root", password_hash="") for _ in range(10))
    )
    assert sorted(made) == [0] * 9 + [1]


async def test_a_name_taken_by_a_user_makes_no_administrator(database: Database, make: Factory) -> None:
    await make.user(username="Root")
    assert await q.accounts.create_first_admin(database, username="root", password_hash="") == 0
    assert await q.accounts.has_admin(database) is False


UNTIL = datetime(2030, 1, 1, tzinfo=UTC)
NOBODY: dict[str, None] = {"session_id": None, "key_id": None}


async def test_a_ticket_works_once_and_for_thirty_seconds(database: Database, make: Factory) -> None:
    root = await make.admin()
    row = await q.accounts.create_ticket(database, hash=b"one", user_id=root.id, access_expires_at=UNTIL, **NOBODY)
    assert row["expires_at"]
    left = row["expires_at"] - datetime.now(UTC)
    assert timedelta(seconds=20) < left <= timedelta(seconds=30)
    used = await asyncio.gather(*(q.accounts.use_ticket(database, hash=b"one") for _ in range(5)))
    assert [dict(one) for one in used if one] == [
        {"id": root.id, "role": "admin", "access_expires_at": UNTIL, **NOBODY}
    ]
    assert await q.accounts.use_ticket(database, hash=b"another") is None


async def test_an_expired_ticket_is_refused_and_deleted_with_the_next(database: Database, make: Factory) -> None:
    ada = await make.user()
    for number in range(3):
        await q.accounts.create_ticket(database, hash=b"%d" % number, user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    await make.sql.execute("update tickets set expires_at = now() - interval '1 ms' where hash <> '2'")
    assert await q.accounts.use_ticket(database, hash=b"0") is None
    await q.accounts.create_ticket(database, hash=b"new", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    assert {row["hash"] for row in await make.sql.fetch("select hash from tickets")} == {b"2", b"new"}


async def test_a_ticket_is_deleted_with_its_account_and_not_created_for_a_deleted_one(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    await q.accounts.create_ticket(database, hash=b"one", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    await make.sql.execute("delete from users where id = $1", ada.id)
    assert await q.accounts.use_ticket(database, hash=b"one") is None
    with pytest.raises(UnauthorizedError):
        await q.accounts.create_ticket(database, hash=b"two", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)


async def test_administrators_see_who_is_active(database: Database, make: Factory) -> None:
    ada = await make.user()
    row = await q.accounts.get_account(database, user_id=ada.id)
    assert row is not None
    assert dict(row).keys() == {"id", "username", "role", "active", "created_at"}
    assert (row["id"], row["username"], row["role"], row["active"]) == (ada.id, ada.username, "user", True)
    assert await q.accounts.get_account(database, user_id=0) is None


async def sessions_of(make: Factory, user: User) -> list[int]:
    rows = await make.sql.fetch("select id from sessions where user_id = $1 order by id", user.id)
    return [row["id"] for row in rows]


@pytest.mark.parametrize("role", [None, "user", "admin"])
@pytest.mark.parametrize("active", [None, True, False])
async def test_omitted_fields_stay_and_only_a_deactivation_ends_sessions(
    database: Database, make: Factory, role: str | None, active: bool | None
) -> None:
    ada, bob, root = await make.admin(), await make.user(), await make.admin()
    row = await q.accounts.change(database, user_id=ada.id, role=role, active=active)
    assert row is not None
    assert (row["id"], row["role"], row["active"]) == (ada.id, role or "admin", active is not False)
    assert await q.accounts.get_account(database, user_id=ada.id) == row
    assert bool(await sessions_of(make, ada)) is (active is not False)
    assert all([await sessions_of(make, one) for one in (bob, root)])
    credentials = await q.accounts.credentials(database, username=ada.username)
    assert credentials is not None
    assert (credentials["role"], credentials["active"]) == (row["role"], row["active"])
    again = await q.accounts.change(database, user_id=ada.id, role="admin", active=True)
    assert again is not None
    assert (again["role"], again["active"]) == ("admin", True)


async def test_a_change_that_cannot_be_leaves_all_as_it_was(database: Database, make: Factory) -> None:
    root = await make.admin()
    assert await q.accounts.change(database, user_id=0, role="admin", active=False) is None
    with pytest.raises(ConflictError, match="last active administrator"):
        await q.accounts.change(database, user_id=root.id, role=None, active=False)
    with pytest.raises(ConflictError, match="last active administrator"):
        await q.accounts.change(database, user_id=root.id, role="user", active=None)
    with pytest.raises(InvalidError):
        await q.accounts.change(database, user_id=root.id, role="owner", active=None)
    row = await q.accounts.get_account(database, user_id=root.id)
    assert row is not None
    assert (row["role"], row["active"]) == ("admin", True)
    assert await sessions_of(make, root) == [root.viewer.session_id]


async def test_one_of_many_administrators_who_demote_each_other_stays(database: Database, make: Factory) -> None:
    admins = [await make.admin() for _ in range(10)]
    done = await asyncio.gather(
        *(q.accounts.change(database, user_id=one.id, role="user", active=None) for one in admins),
        return_exceptions=True,
    )
    (refused,) = [one for one in done if isinstance(one, BaseException)]
    assert isinstance(refused, ConflictError)
    assert await make.sql.fetchval("select count(*) from users where role = 'admin'") == 1


async def test_a_new_password_ends_all_sessions_but_one(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    others = [await make.session(ada.id) for _ in range(2)]
    current_hash = await q.accounts.password(database, user_id=ada.id)
    change: dict[str, Any] = {"user_id": ada.id, "verified_hash": current_hash, "kept_session_id": others[0]}
    assert await q.accounts.set_password(database, **change, password_hash="new") == 1
    assert await q.accounts.password(database, user_id=ada.id) == "new"
    assert await q.accounts.password(database, user_id=bob.id) not in {"new", None}
    assert await sessions_of(make, ada) == [others[0]]
    assert await sessions_of(make, bob) == [bob.viewer.session_id]
    change |= {"verified_hash": "new", "kept_session_id": None}
    assert await q.accounts.set_password(database, **change, password_hash="newer") == 1
    assert await sessions_of(make, ada) == []


async def test_an_outdated_password_hash_changes_nothing_and_ends_nothing(database: Database, make: Factory) -> None:
    ada = await make.user()
    current_hash = await q.accounts.password(database, user_id=ada.id)
    change: dict[str, Any] = {"password_hash": "new", "kept_session_id": None}
    assert await q.accounts.set_password(database, user_id=ada.id, verified_hash="stale", **change) == 0
    assert await q.accounts.set_password(database, user_id=0, verified_hash=current_hash, **change) == 0
    assert await q.accounts.password(database, user_id=ada.id) == current_hash
    assert await q.accounts.password(database, user_id=0) is None
    assert await sessions_of(make, ada) == [ada.viewer.session_id]


async def test_one_of_many_concurrent_password_changes_succeeds(database: Database, make: Factory) -> None:
    ada = await make.user()
    current_hash = await q.accounts.password(database, user_id=ada.id)
    done = await asyncio.gather(
        *(
            q.accounts.set_password(
                database,
                user_id=ada.id,
                password_hash=f"new {number}",
                verified_hash=current_hash,
                kept_session_id=None,
            )
            for number in range(10)
        )
    )
    assert sorted(done) == [0] * 9 + [1]
    assert await q.accounts.password(database, user_id=ada.id) == f"new {done.index(1)}"


NAMES = ["Ada", "ada.b", "ADA-C", "ada_d", "adb", "bob", "Bob2", "Zoe", "a-a", "a.a", "a_a", "000", "zzz", "--_"]


@pytest.mark.parametrize("begin", [None, "ada", "a", "b", "zoe", "ada_", "ada.", "_", "-", "x"])
@pytest.mark.parametrize("sort", ["username", "-username"])
async def test_pages_of_accounts_have_the_names_with_the_prefix_in_order(
    database: Database, make: Factory, sort: Any, begin: str | None
) -> None:
    await make.sql.executemany("insert into users (username, password_hash) values ($1, '')", [(n,) for n in NAMES])
    expected = sorted((n for n in NAMES if n.lower().startswith(begin or "")), key=str.lower, reverse=sort[0] == "-")
    found: list[str] = []
    after: tuple[str | None, int | None] = (None, None)
    while True:
        rows = await q.accounts.list(
            database,
            sort=sort,
            name_from=begin,
            name_before=begin and begin + AFTER_USERNAMES,
            after_value=after[0],
            after_id=after[1],
            row_limit=3,
        )
        found += [row["username"] for row in rows]
        if len(rows) < 3:
            break
        after = (rows[-1]["username"].lower(), rows[-1]["id"])
    assert found == expected
