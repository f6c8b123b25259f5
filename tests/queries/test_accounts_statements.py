"""The statements of `sql/accounts/`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.db import Database
from service.errors import ConflictError, UnauthorizedError
from service.queries import q
from tests.factories import Factory


async def test_a_new_account_is_given_without_its_password(database: Database, make: Factory) -> None:
    row: dict[str, Any] = dict(await q.accounts.create(database, username="Ada", password_hash="kept", role="user"))
    assert row.keys() == {"id", "username", "role", "created_at"}
    assert (row["username"], row["role"]) == ("Ada", "user")
    read = await q.accounts.get(database, user_id=row["id"])
    assert read is not None
    assert dict(read) == row
    assert await make.sql.fetchval("select password_hash from users") == "kept"


async def test_who_is_not_there_has_no_row(database: Database, make: Factory) -> None:
    assert await q.accounts.get(database, user_id=0) is None
    assert await q.accounts.credentials(database, username="nobody") is None


async def test_of_many_with_one_name_exactly_one_is_made(database: Database, make: Factory) -> None:
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


async def test_a_ticket_is_good_once_and_for_thirty_seconds(database: Database, make: Factory) -> None:
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


async def test_an_expired_ticket_is_not_good_and_goes_with_the_next(database: Database, make: Factory) -> None:
    ada = await make.user()
    for number in range(3):
        await q.accounts.create_ticket(database, hash=b"%d" % number, user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    await make.sql.execute("update tickets set expires_at = now() - interval '1 ms' where hash <> '2'")
    assert await q.accounts.use_ticket(database, hash=b"0") is None
    await q.accounts.create_ticket(database, hash=b"new", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    assert {row["hash"] for row in await make.sql.fetch("select hash from tickets")} == {b"2", b"new"}


async def test_a_ticket_goes_with_its_account_and_is_made_for_none_that_is_gone(
    database: Database, make: Factory
) -> None:
    ada = await make.user()
    await q.accounts.create_ticket(database, hash=b"one", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
    await make.sql.execute("delete from users where id = $1", ada.id)
    assert await q.accounts.use_ticket(database, hash=b"one") is None
    with pytest.raises(UnauthorizedError):
        await q.accounts.create_ticket(database, hash=b"two", user_id=ada.id, access_expires_at=UNTIL, **NOBODY)
