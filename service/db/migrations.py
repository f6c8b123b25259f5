"""Applies and rolls back the SQL files of `migrations/` with yoyo, one process at a time."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from yoyo import default_migration_table, read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend as Backend
from yoyo.connections import DatabaseURI

from service.core.errors import StartError
from service.db.migration_files import FOLDER, release_ids
from service.db.readiness import check_server

__all__ = ["FOLDER", "Status", "migrate", "release_ids", "rollback", "status"]

# Advisory locks: one process migrates at a time; one session changes the schema at a time.
MIGRATION_LOCK, SCHEMA_LOCK = 0x7A5C_0001, 0x7A5C_0002
FIRST_MIGRATION = "0001.accounts"
# Defaults of a role or database must not change these.
PINNED = (r"-c default_transaction_isolation=read\ committed", "-c default_transaction_read_only=off")


@dataclass(frozen=True)
class Status:
    """A line of `migrate --status`; an applied migration that is not in `release_ids()` came with a newer release."""

    id: str
    applied: bool


def status(url: str, *, folder: Path = FOLDER) -> list[Status]:
    """Return every migration of the folder and of the database, oldest first.

    Raises: StartError if the database is unavailable.
    """
    with _start_errors("cannot read the schema's state"), psycopg.connect(**_params(url)) as connection:
        _check_server(connection)
        applied = _applied(connection)
    return [Status(name, name in applied) for name in sorted({*release_ids(folder), *applied})]


def migrate(url: str, *, to: str | None = None, folder: Path = FOLDER, wait: float = 60) -> list[str]:
    """Apply the missing migrations, up to and including `to` ("0002.tasks" or "0002"), and return their ids.

    Migrations of a newer release stay applied.
    Raises: StartError if `to` is unknown or older than the schema, if another process still migrates after `wait`
    seconds, or if a migration fails (the ones before it stay applied).
    """
    files = {migration.id: migration for migration in _read(folder)}
    names = list(files)
    end = max((n for n, name in enumerate(names, 1) if to in {None, name, name.partition(".")[0]}), default=0)
    if to is not None and not end:
        raise StartError(f"no migration is called {to!r}; there are {', '.join(names) or 'none'}")
    with _locked(url, wait=wait) as (backend, applied):
        if newer := [name for name in names[end:] if name in applied]:
            raise StartError(f"{newer[-1]} is applied and newer than {to}: use --rollback {len(newer)}")
        missing = [name for name in names[:end] if name not in applied]
        for name in missing:
            _run(backend, files[name], "apply", wait=wait)
    return missing


def rollback(url: str, *, count: int, folder: Path = FOLDER, wait: float = 60) -> list[str]:
    """Roll back the `count` newest migrations, and return their ids, newest first.

    Raises: StartError as `migrate` does, and before any change if fewer are applied or one has no rollback file.
    """
    files = {migration.id: migration for migration in _read(folder)}
    with _locked(url, wait=wait) as (backend, applied):
        if not 1 <= count <= len(applied):
            raise StartError(f"cannot roll back {count} migrations: {len(applied)} are applied")
        newest = applied[::-1][:count]
        if bare := [name for name in newest if not (folder / f"{name}.rollback.sql").exists()]:
            raise StartError(f"this release has no rollback file for {', '.join(bare)}")
        for name in newest:
            _run(backend, files[name], "rollback", wait=wait)
    return newest


def _read(folder: Path) -> list[Any]:
    release_ids(folder)  # raises StartError where yoyo would treat an absent folder as an empty one
    return list(read_migrations(glob.escape(str(folder))))


def _params(url: str) -> dict[str, Any]:
    try:  # libpq's own parser: yoyo's lower-cases socket folders and keeps `%20` in a database's name
        params: dict[str, Any] = psycopg.conninfo.conninfo_to_dict("postgresql://" + url.partition("://")[2])
    except psycopg.Error:
        params = {"host": "@"}
    if "@" in f"{params.get('host')}{params.get('dbname')}":  # part of a cut password, which errors would show
        raise StartError("cannot read DATABASE_URL: special characters in it must be percent-encoded")
    # The last option of a name wins. libpq reads PGOPTIONS only if there are no options.
    options = " ".join([params.get("options") or os.environ.get("PGOPTIONS", ""), *PINNED]).strip()
    return {"connect_timeout": 10, "client_encoding": "utf8", "autocommit": True, **params, "options": options}


def _check_server(connection: psycopg.Connection[Any]) -> None:
    status = connection.info.parameter_status
    check_server(version=connection.info.server_version, encoding=status("server_encoding") or "")


def _applied(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the applied migrations.

    Raises: StartError if the table of migrations is another application's.
    """
    try:
        applied = sorted(row[0] for row in connection.execute("select migration_id from _yoyo_migration"))
    except psycopg.errors.UndefinedTable:
        return []
    if applied and FIRST_MIGRATION not in applied:
        raise StartError(f"the database belongs to another application: it has the migration {applied[0]!r}")
    return applied


def _acquire(connection: psycopg.Connection[Any], lock: int, *, wait: float) -> None:
    deadline = time.monotonic() + wait
    # Not pg_advisory_lock: CREATE INDEX CONCURRENTLY would wait for the snapshot of the waiting statement.
    while connection.execute("select pg_try_advisory_lock(%s)", (lock,)).fetchone() != (True,):
        if time.monotonic() >= deadline:
            raise StartError(f"another migration is still running after {wait:g} s")
        time.sleep(0.1)


@contextmanager
def _locked(url: str, *, wait: float) -> Iterator[tuple[Backend, list[str]]]:
    params = _params(url)
    uri = DatabaseURI("postgresql+psycopg", *[None] * 5, params)
    with _start_errors("cannot migrate"), psycopg.connect(**params) as lock_holder:
        _check_server(lock_holder)
        _acquire(lock_holder, MIGRATION_LOCK, wait=wait)
        with Backend(uri, default_migration_table) as backend:
            applied = _applied(lock_holder)
            if not applied:
                backend.create_lock_table()
            backend.break_lock()  # we hold MIGRATION_LOCK, so the process that left a row here was killed
            with backend.lock():  # excludes yoyo's own command
                backend.ensure_internal_schema_updated()
                yield backend, applied


def _run(backend: Backend, migration: Any, direction: str, *, wait: float) -> None:
    with _start_errors(f"migration {migration.id}: {direction} failed"), backend.copy() as session:
        _acquire(session.connection, SCHEMA_LOCK, wait=wait)  # a killed migrator's statement may still be running
        migration.load()
        # Not yoyo's apply_one: it commits before it marks, and logs the user and host that it finds in passwd and DNS.
        mark = "mark_one" if direction == "apply" else "unmark_one"
        if migration.use_transactions:
            with session.transaction():
                getattr(session, mark)(migration, log=False)  # first: the file may change role or search_path
                migration.process_steps(session, direction)
        else:
            migration.process_steps(session, direction)
            getattr(backend, mark)(migration, log=False)


@contextmanager
def _start_errors(message: str) -> Iterator[None]:
    try:
        yield
    except StartError:
        raise
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, psycopg.OperationalError) and isinstance(cause.__context__, psycopg.Error):
            cause = cause.__context__  # "the connection is closed" hides the reason
        text = repr(cause)
        if isinstance(cause, psycopg.Error):  # without the context, which quotes the file
            text = f"{cause.diag.message_primary or cause} {cause.diag.message_detail or ''}"
        raise StartError(f"{message}: {' '.join(text.split())}") from error
