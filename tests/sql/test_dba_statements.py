"""The statements of `sql/dba/`."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import pytest

from service.core.errors import UnavailableError
from service.db import migrations, pool
from service.db.pool import Database
from service.db.queries import q
from service.db.readiness import MIN_VERSION
from tests.conftest import make_settings

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_applied_migrations_are_listed_in_order(database: Database) -> None:
    assert [row["migration_id"] for row in await q.dba.applied_migrations(database)] == migrations.release_ids()


async def test_without_a_schema_the_database_is_not_the_one(empty_database_url: str) -> None:
    async with pool.connected(empty_database_url, make_settings(empty_database_url)) as database:
        with pytest.raises(UnavailableError, match="schema"):
            await q.dba.applied_migrations(database)


async def test_the_names_of_the_schema_are_listed_by_kind(database: Database) -> None:
    names = {(row["kind"], row["name"]) for row in await q.dba.names(database)}
    assert names >= {
        ("constraint", "tasks_user_id_fkey"),
        ("index", "tasks_user_created_idx"),
        ("index", "users_pkey"),
        ("nullable", "description"),
        ("nullable", "weather"),
    }
    assert ("nullable", "title") not in names
    assert not {name for kind, name in names if kind == "nullable" and name in {"migration_id", "hostname"}}


async def test_a_setting_is_gone_with_its_transaction(sql: Session) -> None:
    async with sql.transaction():
        assert await q.dba.set_for_transaction(sql, name="workbench.p0", value="it's") == "it's"
        assert await sql.fetchval("select current_setting('workbench.p0')") == "it's"
    assert await sql.fetchval("select current_setting('workbench.p0', true)") == ""


async def test_the_server_is_asked_for_its_version_and_encoding(database: Database) -> None:
    server = await q.dba.server(database)
    assert (server["version_number"] >= MIN_VERSION, server["database_encoding"]) == (True, "UTF8")
