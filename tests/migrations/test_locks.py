"""The locks named in the comment of each migration, compared with the locks that it acquires."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.db import migrations

# As PostgreSQL's documentation orders them; weaker ones are in nobody's way but a dropped table's.
MODES = ["share update exclusive", "share", "share row exclusive", "exclusive", "access exclusive"]
FILES = sorted(path for path in migrations.FOLDER.glob("*.sql") if ".rollback" not in path.name)
TAKEN = """
    select r.relname, lower(regexp_replace(replace(l.mode, 'Lock', ''), '([a-z])([A-Z])', '\\1 \\2', 'g'))
    from pg_locks as l join pg_class as r on l.relation = r.oid
    where l.pid = pg_backend_pid() and r.relkind = 'r' and r.relnamespace = 'public'::regnamespace
"""


def comment(text: str) -> str:
    """Return what the comment says of locks."""
    lines = [line.removeprefix("--").strip() for line in text.partition("\n\nset ")[0].splitlines()]
    return " ".join(lines).partition("Locks: ")[2]


def named(text: str) -> set[tuple[str, str]]:
    return {(table, mode) for mode, table in re.findall(r"`([a-z ]+)` on (\w+)", comment(text))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_migration_names_its_locks_and_bounds_the_wait_for_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert comment(text)
    assert all(mode in MODES for _, mode in named(text))
    assert named(text) or "none that anyone waits for" in comment(text)
    assert re.search(r"^set (local )?lock_timeout = '\ds';$", text, re.MULTILINE)
    if "concurrently" in text:
        assert "share update exclusive" in {mode for _, mode in named(text)}


def strongest(locks: Iterator[tuple[str, str]], tables: set[str]) -> set[tuple[str, str]]:
    found: dict[str, str] = {}
    for table, mode in locks:
        if table in tables and mode in MODES:
            found[table] = max(found.get(table, mode), mode, key=MODES.index)
    return set(found.items())


def test_a_migration_acquires_the_locks_that_it_names_and_no_others(empty_database_url: str) -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if not text.startswith("-- transactional: false"):
            with psycopg.connect(empty_database_url) as connection:
                tables = {
                    row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")
                }
                connection.execute(text.encode())
                taken = strongest(((row[0], row[1]) for row in connection.execute(TAKEN.encode())), tables)
                connection.rollback()
            assert taken == strongest(iter(named(text)), tables), path.stem
        migrations.migrate(empty_database_url, to=path.stem)
