"""Parameters of a database URL that libpq knows work or are ignored, others stop the start; the server is checked."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import Conninfo

from service.core import database_url
from service.core.errors import StartError
from service.core.settings import Settings
from service.db import migrations, pool, readiness
from service.db.queries import q
from tests.conftest import make_settings

# As providers of PostgreSQL and guides of tools put them into URLs.
IGNORED = [
    "channel_binding=prefer",
    "connect_timeout=10",
    "keepalives=1&keepalives_idle=30",
    "load_balance_hosts=random",
    "application_name=mine",
    "gssencmode=disable",
]
SHARED = [
    "sslmode=prefer",
    "target_session_attrs=read-write",
    "options=-c%20work_mem%3D5MB",
    "sslmode=disable&connect_timeout=3",
]


def with_parameters(url: str, parameters: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{parameters}"


def test_every_parameter_of_libpq_is_listed() -> None:
    listed = {one.keyword.decode() for one in Conninfo.get_defaults()}
    assert listed - {"hostaddr"} == database_url.SHARED | database_url.LIBPQ_ONLY  # asyncpg would connect to `host`


@pytest.mark.parametrize("parameters", [*IGNORED, *SHARED])
async def test_a_parameter_of_libpq_works_or_is_ignored(database_url: str, parameters: str) -> None:
    url = with_parameters(database_url, parameters)
    settings = make_settings(url)
    async with pool.connected(settings.database_url.get_secret_value(), settings) as database:
        assert await q.accounts.has_admin(database) is not None
        if "work_mem" in parameters:
            async with database.connection() as connection:
                assert await connection.fetchval("show work_mem") == "5MB"
    assert all(one.applied for one in migrations.status(url))


async def test_several_hosts_are_tried_in_order(database_url: str) -> None:
    folder = psycopg.conninfo.conninfo_to_dict(database_url)["host"]
    url = database_url.replace("host=", "host=/nowhere,", 1) if "host=" in database_url else ""
    if not url:
        pytest.skip(f"the tests' PostgreSQL has the address {folder}")
    settings = make_settings(url)
    async with pool.connected(settings.database_url.get_secret_value(), settings) as database:
        assert await q.accounts.has_admin(database) is not None
    assert all(one.applied for one in migrations.status(url))


@pytest.mark.parametrize("variable", ["database_url", "database_listen_url"])
@pytest.mark.parametrize(
    "parameters", ["pgbouncer=true", "schema=public", "search_path=x", "hostaddr=127.0.0.1", "ssl=true"]
)
def test_an_unknown_parameter_is_refused(variable: str, parameters: str) -> None:
    name = parameters.partition("=")[0]
    with pytest.raises(ValueError, match=f"takes no parameter {name}"):
        Settings.model_validate({variable: f"postgresql://ada@db.example/tasks?{parameters}&sslmode=require"})


def test_a_server_of_an_older_release_or_another_encoding_is_refused() -> None:
    readiness.check_server(version=180_000, encoding="UTF8")
    with pytest.raises(StartError, match="PostgreSQL 18 or newer is needed; the server has 17"):
        readiness.check_server(version=170_006, encoding="UTF8")
    with pytest.raises(StartError, match="needs the encoding UTF8 and has LATIN1"):
        readiness.check_server(version=180_000, encoding="LATIN1")


async def test_a_database_with_another_encoding_is_neither_migrated_nor_served(own_database_url: str) -> None:
    with psycopg.connect(own_database_url, autocommit=True) as server:
        database = server.info.dbname
        name = f"{database}_latin1"
        server.execute(f"create database {name} encoding latin1 locale 'C' template template0".encode())
    url = own_database_url.replace(f"/{database}", f"/{name}", 1)
    try:
        with pytest.raises(StartError, match="needs the encoding UTF8"):
            migrations.migrate(url)
        async with pool.connected(url, make_settings(url)) as opened:
            with pytest.raises(StartError, match="needs the encoding UTF8"):
                await readiness.check_server_of(opened)
    finally:
        with psycopg.connect(own_database_url, autocommit=True) as server:
            server.execute(f"drop database {name} with (force)".encode())


def test_the_migrations_of_another_application_are_left_alone(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(
            "create table _yoyo_migration (migration_hash text, migration_id text, applied_at_utc timestamp)"
        )
        connection.execute("insert into _yoyo_migration values ('x', '20200101_01_abc-shop', now())")
        with pytest.raises(StartError, match="belongs to another application"):
            migrations.migrate(empty_database_url)
        tables = connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert tables == [("_yoyo_migration",)]
