"""`sql check`: compares every statement file with its header, the schema, the code that runs it, and the stub."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.db import errors
from service.db.errors import CONSTRAINTS
from service.db.headers import HeaderError
from service.db.pool import Connection
from service.db.statements import FOLDER, Statement, read, statement_files
from service.dba import stub
from service.dba.callers import callers
from service.dba.schema import Prepared, Schema, prepare, read_schema, server_name, sql_name

# The number of columns that each value of `returns` allows.
ANY = range(1, 1600)
COLUMNS = {"count": range(1), "value": range(1, 2), "row": ANY, "row?": ANY, "rows": ANY, "stream": ANY}
PSQL_PREFIX = "dba."  # of statements that may be for psql alone
UNNAMED = "?column?"  # PostgreSQL's name of a column without one


async def check(
    connection: Connection, *, folder: Path = FOLDER, stub_path: Path = stub.STUB, write: bool = False
) -> list[str]:
    """Prepare every file and compare it with its header, and the stub with all of them.

    Return the problems, a line each: file, line, what to do.
    write: rewrite the stub if every file is right; a file that nothing runs yet is no problem then.
    """
    schema = await read_schema(connection)
    is_complete = folder == FOLDER and not write
    run_statements = callers() if is_complete else None
    prepared: list[Prepared] = []
    problems: list[str] = []
    for path in statement_files(folder):
        try:
            statement = read(path, folder=folder)
            if statement.header.returns == "script":
                continue
            prepared.append(await prepare(connection, statement, schema))
            problems += _compare(prepared[-1], schema, run_statements)
        except HeaderError as error:
            problems.append(str(error))
    if is_complete and not problems:
        problems += _unused_constraints(prepared)
    return problems or _check_stub(stub.render(prepared, schema), stub_path, write=write)


def _check_stub(text: str, path: Path, *, write: bool) -> list[str]:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    if not write:
        return [f"{path}:1: differs from the files and the schema: run `python -m service sql check --write`"]
    path.write_text(text, encoding="utf-8")
    return []


def _compare(prepared: Prepared, schema: Schema, run_statements: Mapping[str, object] | None) -> Iterator[str]:
    statement = prepared.statement
    name = statement.name
    if run_statements is not None and name not in run_statements and not name.startswith(PSQL_PREFIX):
        yield f"{statement.path}:1: nothing in service/ runs it: call q.{name}, or remove the file"
    if not prepared.is_prepared:
        return
    for field, problem in _differences(prepared, schema):
        yield f"{statement.path}:{statement.header.lines.get(field, statement.line)}: {field}: {problem}"


def _differences(prepared: Prepared, schema: Schema) -> Iterator[tuple[str, str]]:
    """Return each problem with its field of the header, or `columns`."""
    header = prepared.statement.header
    yield from _compare_params(prepared)
    yield from _compare_columns(prepared, schema)
    for name in header.index:
        if name not in schema.indexes:
            yield "index", f"the schema has no {name}: write the name that \\d shows, or create it in a migration"
        elif schema.indexes[name] not in prepared.tables:
            yield "index", f"{name} is of {schema.indexes[name]}, which the statement does not read: remove it"
    for name in header.scans:
        if name not in prepared.tables:
            yield "scans", f"the statement does not read {name}: remove it"
    yield from _compare_raises(prepared, schema)


def _compare_params(prepared: Prepared) -> Iterator[tuple[str, str]]:
    params = prepared.statement.header.params
    for number in range(1, max(len(params), len(prepared.parameters)) + 1):
        param = params[number - 1] if number <= len(params) else None
        found = prepared.parameters[number - 1] if number <= len(prepared.parameters) else None
        declared = server_name(param.type) if param else None
        if declared != found:
            todo = f"write {sql_name(found)}" if found else "remove it"
            yield (
                "params",
                f"${number} is {found or 'not used'} to the server, and {declared or 'nothing'} in the header: {todo}",
            )
        elif param and not param.nullable and _is_compared_with_null(prepared.statement, number):
            yield "params", f"${number} is compared with null: write {param.name} {param.type}?"
        yield from _check_type("params", declared)


def _is_compared_with_null(statement: Statement, number: int) -> bool:
    """Whether the statement compares a parameter with NULL, or replaces NULL by `coalesce`."""
    text = next(iter(statement.texts.values()))
    value = rf"\${number}(?!\d)(::[\w\[\]]+)?"
    return bool(re.search(rf"{value}\s+is\s+(not\s+)?null|coalesce\(\s*{value}\s*,", text, re.IGNORECASE))


def _compare_columns(prepared: Prepared, schema: Schema) -> Iterator[tuple[str, str]]:
    header, columns = prepared.statement.header, prepared.columns or {}
    if len(columns) not in COLUMNS[header.returns]:
        kinds = ", ".join(kind for kind, numbers in COLUMNS.items() if len(columns) in numbers)
        yield "returns", f"{header.returns} does not fit {len(columns)} columns: write one of {kinds}"
    for name in prepared.duplicate_columns:
        yield "columns", f"two columns are called {name}: rename one with `as`"
    if UNNAMED in columns:
        yield "columns", "a column has no name: name it with `as`"
    for kind in columns.values():
        yield from _check_type("columns", kind)
    for name in header.nullable:
        if name not in columns:
            yield "nullable", f"there is no column {name}: remove it"
        elif name in schema.nullable:
            yield "nullable", f"{name} may be null in its table already: remove it"


def _check_type(field: str, kind: str | None) -> Iterator[tuple[str, str]]:
    if kind and kind.removesuffix("[]") not in stub.PYTHON:
        yield field, f"{kind} is a type that stub.PYTHON lacks: cast it to another, or add it there"


def _compare_raises(prepared: Prepared, schema: Schema) -> Iterator[tuple[str, str]]:
    for name, code in prepared.statement.header.raises.items():
        if name not in schema.constraints:
            yield "raises", f"the schema has no {name}: write the name that \\d shows, or remove it"
        elif name not in CONSTRAINTS or CONSTRAINTS[name]().code != code:
            yield "raises", f"db/errors.py does not map {name} -> {code}: add it to CONSTRAINTS, or correct the header"
        elif schema.constraints[name] not in prepared.written:
            yield "raises", f"{name} is of {schema.constraints[name]}, which the statement does not write: remove it"


def _unused_constraints(prepared: list[Prepared]) -> Iterator[str]:
    """Return a problem for each constraint of the error table that no header names."""
    raised = {name for one in prepared for name in one.statement.header.raises}
    path = Path(inspect.getfile(errors))
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in CONSTRAINTS.keys() - raised:
        line = next(number for number, text in enumerate(lines, start=1) if f'"{name}"' in text)
        yield f"{path}:{line}: no statement raises {name}: add it to the `raises` of those that can, or remove it"
