"""Statements that are committed together: all of them or none, and the listeners hear of it afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from service.core.errors import InvalidError, UnavailableError
from service.db import pool
from service.db.pool import Database, Transaction
from service.db.queries import q
from tests.conftest import make_settings
from tests.support.factories import Factory

TASK: dict[str, Any] = {"description": None, "status": "todo", "city": None, "weather": None}


async def titles(make: Factory) -> list[str]:
    return [row["title"] for row in await make.sql.fetch("select title from tasks order by id")]


async def two(transaction: Transaction, user_id: int, *named: str) -> None:
    for title in named:
        await q.tasks.create(transaction, user_id=user_id, title=title, **TASK)


async def pid(transaction: Transaction) -> int:
    connection = await transaction.connection()
    return int(await connection.fetchval("select pg_backend_pid()"))


async def test_a_transaction_is_visible_as_a_whole_after_its_commit(database: Database, make: Factory) -> None:
    ada = await make.user()
    async with database.transaction() as transaction:
        for title in ("one", "two"):
            await q.tasks.create(transaction, user_id=ada.id, title=title, **TASK)
            assert await titles(make) == []
    assert await titles(make) == ["one", "two"]


@pytest.mark.parametrize("refused", [True, False])
async def test_a_failed_transaction_leaves_nothing(database: Database, make: Factory, refused: bool) -> None:
    ada = await make.user()

    async def fail() -> None:
        async with database.transaction() as transaction:
            await two(transaction, ada.id, "one", "" if refused else "two")
            raise ZeroDivisionError

    with pytest.raises(InvalidError if refused else ZeroDivisionError):
        await fail()
    assert await titles(make) == []
    await q.tasks.create(database, user_id=ada.id, title="the next", **TASK)
    assert await titles(make) == ["the next"]


async def test_listeners_are_woken_once_it_is_committed(
    database: Database, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    heard: list[None] = []
    monkeypatch.setattr(database, "on_change", lambda: heard.append(None))
    async with database.transaction() as transaction:
        await two(transaction, ada.id, "one", "two")
        await q.tasks.get(transaction, task_id=1, viewer_id=ada.id, viewer_is_admin=False)
        assert heard == []
    assert heard == [None]
    async with database.transaction() as transaction:
        await q.tasks.get(transaction, task_id=1, viewer_id=ada.id, viewer_is_admin=False)

    async def fail() -> None:
        async with database.transaction() as transaction:
            await two(transaction, ada.id, "three", "")

    with pytest.raises(InvalidError):
        await fail()
    assert heard == [None]


async def test_a_connection_is_acquired_with_the_first_statement_and_released_at_the_end(
    database_url: str, make: Factory
) -> None:
    async with pool.connected(database_url, make_settings(database_url, database_pool_size=1)) as one:
        for _ in range(3):
            async with one.transaction() as transaction:
                async with one.connection():
                    pass  # there is but one, and the transaction has not begun
                first = await pid(transaction)
                assert await pid(transaction) == first
        async with one.connection() as connection:
            assert not connection.is_in_transaction()


async def test_a_database_lost_during_a_transaction_is_reported_as_unavailable(
    database: Database, make: Factory
) -> None:
    ada = await make.user()

    async def interrupted() -> None:
        async with database.transaction() as transaction:
            await q.tasks.create(transaction, user_id=ada.id, title="one", **TASK)
            await make.sql.execute("select pg_terminate_backend($1, 10000)", await pid(transaction))

    with pytest.raises(UnavailableError):
        await interrupted()
    assert await titles(make) == []
