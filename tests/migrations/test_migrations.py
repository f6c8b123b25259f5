"""The migrator against a real PostgreSQL, with small folders of its own."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from service.core.errors import StartError
from service.db import migrations
from service.db.migrations import Status, migrate, release_ids, rollback, status

MIGRATOR = """
import json, sys
from pathlib import Path
from service.migrations import migrate
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(migrate(sys.argv[1], folder=Path(sys.argv[2]))))
"""
SCHEMA = """
    select 'column', table_name, column_name || ' ' || data_type from information_schema.columns
        where table_schema = 'public' and table_name !~ 'yoyo'
    union all select 'index', indexname, indexdef from pg_indexes
        where schemaname = 'public' and tablename !~ 'yoyo'
    union all select 'function', proname, prosrc from pg_proc where pronamespace = 'public'::regnamespace
    union all select 'trigger', tgname, tgrelid::regclass::text from pg_trigger where not tgisinternal
    order by 1, 2, 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tables and a function, in a folder whose name a glob would take for a pattern."""
    folder = tmp_path / "a [folder]"
    folder.mkdir()
    write(folder, "0001.accounts", "create table accounts (id int primary key);", "drop table accounts;")
    write(
        folder,
        "0002.tasks",
        "create table tasks (id int, account int references accounts); create index tasks_idx on tasks (id);",
        "drop index tasks_idx; drop table tasks;",
    )
    write(
        folder,
        "0003.touch",
        """
        -- A function; its body holds semicolons.
        create function touch() returns trigger language plpgsql as $$
        begin
            if new.id is null then new.id := 1; end if;
            return new;
        end;
        $$;
        create trigger tasks_touch before insert on tasks for each row execute function touch();
        """,
        "drop trigger tasks_touch on tasks; drop function touch();",
    )
    return folder


def write(folder: Path, name: str, up: str, down: str | None = None) -> None:
    (folder / f"{name}.sql").write_text(up)
    if down is not None:
        (folder / f"{name}.rollback.sql").write_text(down)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> set[str]:
    return {row[0] for row in rows(url, "select relname from pg_class where relnamespace = 'public'::regnamespace")}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for 30 s"
        time.sleep(0.02)


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATOR, url, str(folder)],
        cwd=migrations.FOLDER.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def race(url: str, folder: Path, *, migrators: int) -> list[str]:
    """Let so many processes migrate at the same moment; return what they applied, together."""
    processes = [start(url, folder) for _ in range(migrators)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        applied: list[str] = []
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            applied += json.loads(out)
        return applied
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def bounded(url: str) -> str:
    """Return the URL with a limit on every statement, so that a wait that should not be ends as an error."""
    return f"{url}{'&' if '?' in url else '?'}options=-c%20statement_timeout%3D15s"


def with_password(url: str) -> tuple[str, str]:
    """Return the URL with a password in it, one that the server may not ask for, and that password."""
    secret = urlsplit(url).password or "s3cr3t"
    return f"postgresql://{urlsplit(url).username}:{secret}@{url.partition('@')[2]}", secret


def test_applies_in_order_and_once(empty_database_url: str, folder: Path) -> None:
    assert migrate(empty_database_url, folder=folder) == ["0001.accounts", "0002.tasks", "0003.touch"]
    assert migrate(empty_database_url, folder=folder) == []
    assert {"accounts", "tasks", "tasks_idx"} <= tables(empty_database_url)


def test_listing_migrations_needs_no_database(folder: Path) -> None:
    assert release_ids(folder) == ["0001.accounts", "0002.tasks", "0003.touch"]


def test_a_missing_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no folder"):
        release_ids(tmp_path / "nowhere")


def test_status_of_a_virgin_database_changes_nothing(empty_database_url: str, folder: Path) -> None:
    assert status(empty_database_url, folder=folder) == [
        Status("0001.accounts", applied=False),
        Status("0002.tasks", applied=False),
        Status("0003.touch", applied=False),
    ]
    assert tables(empty_database_url) == set()


@pytest.mark.parametrize("to", ["0002", "0002.tasks"])
def test_migrates_up_to_the_one_named(empty_database_url: str, folder: Path, to: str) -> None:
    assert migrate(empty_database_url, to=to, folder=folder) == ["0001.accounts", "0002.tasks"]
    assert [line.applied for line in status(empty_database_url, folder=folder)] == [True, True, False]
    assert migrate(empty_database_url, to=to, folder=folder) == []


def test_an_unknown_target_lists_the_existing_migrations(empty_database_url: str, folder: Path) -> None:
    with pytest.raises(StartError, match=r"'0009'; there are 0001\.accounts, 0002\.tasks, 0003\.touch$"):
        migrate(empty_database_url, to="0009", folder=folder)
    assert tables(empty_database_url) == set()


def test_never_goes_down_silently(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder=folder)
    with pytest.raises(StartError, match=r"0003\.touch is applied and newer than 0001: use --rollback 2$"):
        migrate(empty_database_url, to="0001", folder=folder)
    assert all(line.applied for line in status(empty_database_url, folder=folder))


def test_rolls_back_the_newest_first(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder=folder)
    assert rollback(empty_database_url, count=2, folder=folder) == ["0003.touch", "0002.tasks"]
    assert [line.applied for line in status(empty_database_url, folder=folder)] == [True, False, False]
    assert "tasks" not in tables(empty_database_url)


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_rolls_back_no_more_than_there_is(empty_database_url: str, folder: Path, count: int) -> None:
    migrate(empty_database_url, folder=folder)
    with pytest.raises(StartError, match=f"cannot roll back {count} migrations: 3 are applied"):
        rollback(empty_database_url, count=count, folder=folder)
    assert "accounts" in tables(empty_database_url)


def test_rolls_back_nothing_where_a_rollback_file_is_missing(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder=folder)
    (folder / "0002.tasks.rollback.sql").unlink()
    with pytest.raises(StartError, match=r"no rollback file for 0002\.tasks$"):
        rollback(empty_database_url, count=2, folder=folder)
    assert all(line.applied for line in status(empty_database_url, folder=folder))


def test_up_down_up_leaves_the_same_schema(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder=folder)
    before = rows(empty_database_url, SCHEMA)
    rollback(empty_database_url, count=3, folder=folder)
    assert rows(empty_database_url, SCHEMA) == []
    assert migrate(empty_database_url, folder=folder) == release_ids(folder)
    assert rows(empty_database_url, SCHEMA) == before != []


def test_a_newer_schema_is_left_alone(empty_database_url: str, folder: Path) -> None:
    write(folder, "0004.newer", "create table newer ();", "drop table newer;")
    migrate(empty_database_url, folder=folder)
    for file in folder.glob("0004*"):
        file.unlink()
    assert migrate(empty_database_url, folder=folder) == []
    assert migrate(empty_database_url, to="0003", folder=folder) == []
    assert status(empty_database_url, folder=folder)[-1] == Status("0004.newer", applied=True)
    with pytest.raises(StartError, match=r"no rollback file for 0004\.newer$"):
        rollback(empty_database_url, count=1, folder=folder)


def test_many_processes_race_on_a_virgin_database(empty_database_url: str, folder: Path) -> None:
    assert sorted(race(empty_database_url, folder, migrators=8)) == release_ids(folder)


def test_many_processes_race_over_a_concurrent_index(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder=folder)
    rows(empty_database_url, "insert into accounts select generate_series(1, 5000)")
    index = "-- transactional: false\ncreate index concurrently accounts_idx on accounts (id);"
    write(folder, "0004.index", index, "drop index concurrently accounts_idx;")
    assert race(empty_database_url, folder, migrators=4) == ["0004.index"]
    assert rows(empty_database_url, "select indisvalid from pg_index where indexrelid = 'accounts_idx'::regclass") == [
        (True,)
    ]
    assert rollback(empty_database_url, count=1, folder=folder) == ["0004.index"]
    assert "accounts_idx" not in tables(empty_database_url)


def test_the_migration_lock_is_held_by_an_idle_connection(empty_database_url: str, folder: Path) -> None:
    seen = f"""
        create table seen as select state, backend_xmin is null and backend_xid is null as outside
        from pg_stat_activity join pg_locks using (pid)
        where locktype = 'advisory' and objid = {migrations.MIGRATION_LOCK} and datname = current_database();
    """
    write(folder, "0004.seen", seen)
    migrate(empty_database_url, folder=folder)
    assert rows(empty_database_url, "select * from seen") == [("idle", True)]


def test_a_stale_lock_row_is_removed(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, to="0001", folder=folder)
    rows(empty_database_url, "insert into yoyo_lock (locked, ctime, pid) values (1, now(), 4711)")
    started = time.monotonic()
    assert migrate(empty_database_url, folder=folder) == ["0002.tasks", "0003.touch"]
    assert time.monotonic() - started < 5
    assert rows(empty_database_url, "select * from yoyo_lock") == []


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_a_killed_migrator_is_waited_for_and_made_up_for(
    empty_database_url: str, folder: Path, transactional: str
) -> None:
    url = empty_database_url
    migrate(url, folder=folder)
    comment = f"-- transactional: {transactional}\n"
    write(folder, "0004.slow", f"{comment} create table if not exists slow (); select pg_sleep(600);")
    sleeping = "from pg_stat_activity where query ~ '^select pg_sleep' and datname = current_database()"
    with start(url, folder) as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        until(lambda: rows(url, f"select pid {sleeping}"))
        os.kill(process.pid, signal.SIGKILL)
    # The server does not notice: the statement goes on, and a second one beside it would do the work twice.
    with pytest.raises(StartError, match=r"^another migration is still running after 0\.5 s$"):
        migrate(bounded(url), folder=folder, wait=0.5)
    rows(url, f"select pg_terminate_backend(pid) {sleeping}")
    write(folder, "0004.slow", f"{comment} create table if not exists slow ();")
    assert migrate(url, folder=folder) == ["0004.slow"]
    assert "slow" in tables(url)


def test_a_failing_migration_leaves_nothing_and_is_named(empty_database_url: str, folder: Path) -> None:
    url, secret = with_password(empty_database_url)
    write(folder, "0004.broken", "create table half ();\ninsert into accounts values (1), (1);\n")
    write(folder, "0005.later", "create table later ();")
    with pytest.raises(StartError) as caught:
        migrate(url, folder=folder)
    assert caught.value.detail == (
        "migration 0004.broken: apply failed: duplicate key value violates unique constraint "
        '"accounts_pkey" Key (id)=(1) already exists.'
    )
    assert secret not in caught.value.detail
    assert [line.applied for line in status(url, folder=folder)] == [True, True, True, False, False]
    assert not {"half", "later"} & tables(url)


def test_a_failing_rollback_leaves_the_migration_applied(empty_database_url: str, folder: Path) -> None:
    write(folder, "0004.broken", "create table half ();", "drop table half; drop table nowhere;")
    migrate(empty_database_url, folder=folder)
    with pytest.raises(StartError, match=r'^migration 0004\.broken: rollback failed: table "nowhere" does not'):
        rollback(empty_database_url, count=1, folder=folder)
    assert "half" in tables(empty_database_url)
    assert status(empty_database_url, folder=folder)[-1].applied


def test_a_failing_migration_without_transaction_is_undone(empty_database_url: str, folder: Path) -> None:
    up = "-- transactional: false\ncreate table half (id int);\ncreate index half_idx on half (id);\nbroken;"
    write(folder, "0004.broken", up, "drop index half_idx;\ndrop table half;")
    with pytest.raises(StartError, match=r"0004\.broken: apply failed: syntax error"):
        migrate(empty_database_url, folder=folder)
    assert not {"half", "half_idx"} & tables(empty_database_url)
    assert not status(empty_database_url, folder=folder)[-1].applied


def test_a_lost_connection_reports_why(empty_database_url: str, folder: Path) -> None:
    write(folder, "0004.lost", "select pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(StartError, match=r"0004\.lost: apply failed: terminating connection due to administrator"):
        migrate(empty_database_url, folder=folder)


@pytest.mark.parametrize("text", ["-- transactional: maybe\nselect 1;", "-- depends: 0000.nothing\nselect 1;"])
def test_a_file_that_cannot_be_read_is_named(empty_database_url: str, folder: Path, text: str) -> None:
    write(folder, "0004.odd", text)
    with pytest.raises(StartError, match=r"0004\.odd: apply failed: .*"):
        migrate(empty_database_url, folder=folder)


@pytest.mark.parametrize("transactional", ["true", "false"])
def test_settings_made_by_a_migration_end_with_it(empty_database_url: str, folder: Path, transactional: str) -> None:
    sets = "set lock_timeout = '3s'; set search_path = pg_catalog;"
    write(folder, "0004.sets", f"-- transactional: {transactional}\n{sets}")
    write(folder, "0005.sees", "create table seen as select current_setting('lock_timeout') as lock_timeout;")
    assert migrate(empty_database_url, folder=folder)[-2:] == ["0004.sets", "0005.sees"]
    assert rows(empty_database_url, "select lock_timeout from seen") == [("0",)]


def test_a_databases_defaults_do_not_reach_a_migration(empty_database_url: str, folder: Path) -> None:
    (database,) = rows(empty_database_url, "select quote_ident(current_database())")[0]
    rows(empty_database_url, f"alter database {database} set default_transaction_isolation = serializable")
    rows(empty_database_url, f"alter database {database} set default_transaction_read_only = on")
    sees = "create table seen as select current_setting('transaction_isolation') as isolation;"
    write(folder, "0004.sees", sees, "drop table seen;")
    write(folder, "0005.sees", f"-- transactional: false\n{sees.replace('seen', 'alone')}", "drop table alone;")
    assert migrate(empty_database_url, folder=folder) == release_ids(folder)
    assert rows(empty_database_url, "select isolation from seen union all select isolation from alone") == [
        ("read committed",),
        ("read committed",),
    ]
    assert rollback(empty_database_url, count=5, folder=folder) == release_ids(folder)[::-1]


def test_options_of_the_environment_are_kept(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(empty_database_url, "create schema odd")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=odd")
    migrate(empty_database_url, to="0001", folder=folder)
    monkeypatch.delenv("PGOPTIONS")
    assert rows(empty_database_url, "select count(*) from odd.accounts") == [(0,)]


def test_migrations_may_contain_any_sql(empty_database_url: str, folder: Path) -> None:
    write(
        folder,
        "0004.odd",
        """
        create table odd (name text check (name like '%s%%'), note text default 'a; b -- c é');
        create function twice(n int) returns int language sql begin atomic
            select case when n is null then 0 else n * 2 end;
        end;
        do $$ begin for n in 1..2 loop insert into odd values ('s'); end loop; end $$;
        """,
    )
    migrate(empty_database_url, folder=folder)
    assert rows(empty_database_url, "select name, note, twice(2) from odd limit 1") == [("s", "a; b -- c é", 4)]


def test_needs_neither_passwd_nor_dns(empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)
    monkeypatch.setattr(socket, "getfqdn", fail)
    migrate(empty_database_url, folder=folder)
    assert rollback(empty_database_url, count=1, folder=folder) == ["0003.touch"]


def test_migrating_fails_if_another_process_holds_the_lock(empty_database_url: str, folder: Path) -> None:
    with psycopg.connect(empty_database_url) as other:
        other.execute("select pg_advisory_lock(%s)", (migrations.MIGRATION_LOCK,))
        started = time.monotonic()
        with pytest.raises(StartError, match=r"^another migration is still running after 0\.3 s$"):
            migrate(bounded(empty_database_url), folder=folder, wait=0.3)
        assert time.monotonic() - started >= 0.3
        assert status(empty_database_url, folder=folder)[0] == Status("0001.accounts", applied=False)
    assert migrate(empty_database_url, folder=folder) == release_ids(folder)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cr3t@127.0.0.1:1/db",
        "postgresql://me:s3cr3t@/db?host=%2Fnowhere",
        "postgresql://me:12@s3cr3t@127.0.0.1/db",
        "postgresql://me:12/s3cr3t@127.0.0.1/db",
        "postgresql://me:s3cr3t/12@127.0.0.1/db",
        "postgresql://me:s3cr3t%zz@127.0.0.1/db",
        "postgresql://me:s3cr3t@127.0.0.1/db?nonsense=1",
        "s3cr3t",
        "",
    ],
)
def test_an_unusable_url_tells_no_secret(url: str, folder: Path) -> None:
    for act in (lambda: migrate(url, folder=folder), lambda: status(url, folder=folder)):
        with pytest.raises(StartError) as caught:
            act()
        assert "s3cr3t" not in caught.value.detail
        assert "\n" not in caught.value.detail


def test_a_refused_login_tells_no_secret(empty_database_url: str, folder: Path) -> None:
    url = f"postgresql://no_such_role:s3cr3t@{empty_database_url.partition('@')[2]}"
    with pytest.raises(StartError, match=r"^cannot migrate: .*FATAL.*no_such_role") as caught:
        migrate(url, folder=folder)
    assert "s3cr3t" not in caught.value.detail
    assert "\n" not in caught.value.detail


def test_the_urls_of_both_drivers_are_accepted(empty_database_url: str, folder: Path) -> None:
    url = empty_database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    assert migrate(url, folder=folder) == release_ids(folder)
    assert all(line.applied for line in status(url, folder=folder))


def test_options_and_odd_characters_survive(empty_database_url: str, folder: Path) -> None:
    odd = 'a b%"é+'
    rows(empty_database_url, "create schema odd")
    separator = "&" if "?" in empty_database_url else "?"
    options = f"sslmode=prefer&options=-c%20search_path%3Dodd&application_name={quote(odd)}"
    write(
        folder,
        "0001.accounts",
        "create table accounts as select current_setting('application_name') as name;",
    )
    migrate(empty_database_url + separator + options, to="0001", folder=folder)
    assert rows(empty_database_url, "select name from odd.accounts")[0][0].startswith('a b%"')


def test_a_password_is_read_as_libpq_reads_it() -> None:
    params = migrations._params("postgresql+asyncpg://u:p%40%2F%25+s@%2FMy%20Dir/a%20db?sslmode=require")
    assert {
        "user": "u",
        "password": "p@/%+s",
        "host": "/My Dir",
        "dbname": "a db",
        "sslmode": "require",
    }.items() <= (params.items())
