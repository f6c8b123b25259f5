"""The structure of the repository: imports between packages, places of SQL, files at the top level."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "service").rglob("*.py"))

SQL = re.compile(
    r"""\s*(/\*.*?\*/\s*)?
        (select|insert\s+into|update\s+\S+\s+set|delete\s+from|with\s+\w+\s+as|explain|truncate
        |(create|alter|drop)\s+(table|view|index|function|trigger|role|database)|set\s+(local|session)|lock\s+table
        |prepare\s+\w+\s+(as|\(.*\)\s+as)|((un)?listen|notify|savepoint)\s\w+)\b
      |.*\bselect\b.*\bfrom\b|.*\border\s+by\b|.*\bwhere\s+\w+\.\w+|.*\bpg_\w+\s*\(""",
    re.VERBOSE | re.DOTALL,
)
ALLOWED_SQL = {
    ("pool.py", "set local "),  # the settings that a pooler refuses for a session
    ("pool.py", "set local transaction_read_only = off; "),
    ("pool.py", "set local idle_in_transaction_session_timeout = 0"),
    ("pool.py", "set local transaction_read_only = off; "),  # PgBouncer refuses them for a session
    ("pool.py", "set local "),
    ("migrations.py", "select migration_id from _yoyo_migration"),  # the tables are yoyo's, and absent at first
    ("migrations.py", "select pg_try_advisory_lock(%s)"),
    ("statements.py", "explain (format json) "),  # around a file's own text
    ("explain.py", "explain ("),  # the same
    ("__init__.py", "explain"),  # a word of the command line
    ("scratch_database.py", "create database "),  # its name is no parameter
    ("scratch_database.py", "drop database "),
}
ALLOWED_AT_THE_TOP = {
    *("service", "sql", "tests", "migrations", "docs", "Dockerfile", "docker-compose.yml", "requirements.txt"),
    *("requirements-dev.txt", "README.md", "Makefile", "pyproject.toml", "LICENSE"),
    *(f"requirements{name}.lock" for name in ("", "-embedded", "-s3", "-dev")),
}


def strings(module: Path) -> Iterator[str]:
    """Return the string constants of a module, docstrings aside."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_the_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_sql_is_in_files_and_the_named_exceptions_are_still_needed() -> None:
    found = {(module.name, text) for module in MODULES for text in strings(module) if SQL.match(text.lower())}
    assert found == ALLOWED_SQL


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_no_module_of_the_service_mentions_the_folder_of_the_tests(module: Path) -> None:
    """The image has service/, sql/ and migrations/ alone."""
    assert not re.search(r"\btests\b", module.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("select 1", True),
        ("\n  insert into tasks (title) values ($1)", True),
        ("/* tasks.get */ delete from tasks", True),
        ("update tasks set title = $1", True),
        (" order by t.id", True),
        ("with a as (", True),
        ("LISTEN tasks", True),
        ("PREPARE one (int) AS", True),
        ("only say where the schema stands", False),
        ("with an external DATABASE_URL it takes", False),
        ("rollback", False),
        ("Prepare Report", False),
        ("set by the service alone", False),
        ("takes a date of the calendar, from year 1", False),
    ],
)
def test_sql_is_distinguished_from_prose(text: str, is_sql: bool) -> None:
    assert bool(SQL.match(text.lower())) is is_sql


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_top_level_contains_only_the_listed_files() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    top = {path.partition("/")[0] for path in listing.stdout.splitlines()}
    assert top, listing
    assert {name for name in top if not name.startswith(".")} <= ALLOWED_AT_THE_TOP


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_a_module_docstring_is_one_sentence(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    assert re.fullmatch(r"[^\n]+[^.\n]\.", docstring.partition("\n\n")[0])
    assert ". " not in docstring.partition("\n\n")[0]
