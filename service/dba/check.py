"""`sql check` holds every file against its header, the schema, the code that runs it, and the stub."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

from service.db import errors
from service.db.errors import CONSTRAINTS
from service.db.headers import HeaderError
from service.db.pool import Connection
from service.db.statements import FOLDER, Statement, read, statement_files
from service.dba import stub
from service.dba.callers import callers
from service.dba.schema import Catalogue, Prepared, catalogue, prepare, server_name

# How many columns a statement may give, by what its header says it returns.
ANY = range(1, 1600)
COLUMNS = {"count": range(1), "value": range(1, 2), "row": ANY, "row?": ANY, "rows": ANY, "stream": ANY}
FOR_PSQL = "dba."
UNNAMED = "?column?"


async def check(
    connection: Connection, *, folder: Path = FOLDER, stub_path: Path = stub.STUB, write: bool = False
) -> list[str]:
    """Prepare every file and compare it with its header, and the stub with all of them.

    write: renew the stub, where every file holds; that a file is not run yet is no obstacle.
    Gives what does not hold, a line each: file, line, what to do.
    """
    known = await catalogue(connection)
    whole = folder == FOLDER and not write
    run = callers() if whole else None
    prepared: list[Prepared] = []
    problems: list[str] = []
    for path in statement_files(folder):
        try:
            statement = read(path, folder=folder)
            if statement.header.returns == "script":
                continue
            prepared.append(await prepare(connection, statement, known))
            problems += _compare(prepared[-1], known, run)
        except HeaderError as error:
            problems.append(str(error))
    if whole and not problems:
        problems += _unused(prepared)
    return problems or _check_stub(stub.render(prepared, known), stub_path, write=write)


def _check_stub(text: str, path: Path, *, write: bool) -> list[str]:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    if not write:
        return [f"{path}:1: is not what the files and the schema say: run `python -m service sql check --write`"]
    path.write_text(text, encoding="utf-8")
    return []


def _compare(prepared: Prepared, known: Catalogue, run: Mapping[str, object] | None) -> Iterator[str]:
    statement = prepared.statement
    name = statement.name
    if run is not None and name not in run and not name.startswith(FOR_PSQL):
        yield f"{statement.path}:1: nothing in service/ runs it: call q.{name}, or remove the file"
    if not prepared.is_known:
        return
    for field, problem in _differences(prepared, known):
        yield f"{statement.path}:{statement.header.lines.get(field, statement.line)}: {field}: {problem}"


def _differences(prepared: Prepared, known: Catalogue) -> Iterator[tuple[str, str]]:
    """Give what does not hold of each field, or of the columns."""
    header = prepared.statement.header
    yield from _compare_params(prepared)
    yield from _compare_columns(prepared, known)
    for name in header.index:
        if name not in known.indexes:
            yield "index", f"the schema has no {name}: write the name that \\d shows, or make it in a migration"
        elif known.indexes[name] not in prepared.tables:
            yield "index", f"{name} is of {known.indexes[name]}, which the statement does not read: take it out"
    for name in header.scans:
        if name not in prepared.tables:
            yield "scans", f"the statement does not read {name}: take it out"
    yield from _compare_raises(prepared, known)


def _compare_params(prepared: Prepared) -> Iterator[tuple[str, str]]:
    params = prepared.statement.header.params
    for number, (said, found) in enumerate(zip_longest(params, prepared.parameters), start=1):
        declared = said and server_name(said.type)
        if declared != found:
            todo = f"write {_sql_name(found)}" if found else "take it out"
            yield (
                "params",
                f"${number} is {found or 'not used'} to the server, and {declared or 'nothing'} in the header: {todo}",
            )
        elif said and not said.nullable and _is_asked(prepared.statement, number):
            yield "params", f"${number} is asked whether it is null: write {said.name} {said.type}?"
        yield from _known_type("params", declared or None)


def _is_asked(statement: Statement, number: int) -> bool:
    """Whether the statement does something of its own where a parameter is NULL."""
    text = next(iter(statement.texts.values()))
    value = rf"\${number}(?!\d)(::[\w\[\]]+)?"
    return bool(re.search(rf"{value}\s+is\s+(not\s+)?null|coalesce\(\s*{value}\s*,", text, re.IGNORECASE))


def _compare_columns(prepared: Prepared, known: Catalogue) -> Iterator[tuple[str, str]]:
    header, columns = prepared.statement.header, prepared.columns or {}
    if len(columns) not in COLUMNS[header.returns]:
        kinds = ", ".join(kind for kind, numbers in COLUMNS.items() if len(columns) in numbers)
        yield "returns", f"{header.returns} does not go with {len(columns)} columns: write one of {kinds}"
    for name in prepared.twice:
        yield "columns", f"two columns are called {name}: give one another name with `as`"
    if UNNAMED in columns:
        yield "columns", "a column has no name: give it one with `as`"
    for kind in columns.values():
        yield from _known_type("columns", kind)
    for name in header.nullable:
        if name not in columns:
            yield "nullable", f"there is no column {name}: take it out"
        elif name in known.nullable:
            yield "nullable", f"{name} may be null in its table already: take it out"


def _known_type(field: str, kind: str | None) -> Iterator[tuple[str, str]]:
    if kind and kind.removesuffix("[]") not in stub.PYTHON:
        yield field, f"{kind} is a type that stub.PYTHON does not know: cast it to one, or add it there"


def _sql_name(kind: str) -> str:
    names = {server_name(name): name for name in ("bigint", "integer", "boolean", "double precision")}
    element = kind.removesuffix("[]")
    return names.get(element, element) + kind[len(element) :]


def _compare_raises(prepared: Prepared, known: Catalogue) -> Iterator[tuple[str, str]]:
    for name, code in prepared.statement.header.raises.items():
        if name not in known.constraints:
            yield "raises", f"the schema has no {name}: write the name that \\d shows, or take it out"
        elif name not in CONSTRAINTS or CONSTRAINTS[name]().code != code:
            yield "raises", f"db_errors.CONSTRAINTS does not say {name} -> {code}: say it there, or write what it says"
        elif known.constraints[name] not in prepared.written:
            yield "raises", f"{name} is of {known.constraints[name]}, which the statement does not write: take it out"


def _unused(prepared: list[Prepared]) -> Iterator[str]:
    """Give what the error table names, and no header does."""
    raised = {name for one in prepared for name in one.statement.header.raises}
    path = Path(inspect.getfile(errors))
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in CONSTRAINTS.keys() - raised:
        line = next(number for number, text in enumerate(lines, start=1) if f'"{name}"' in text)
        yield f"{path}:{line}: no statement raises {name}: add it to the `raises` of those that can, or take it out"
