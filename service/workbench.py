"""The DBA's commands over the statements: `sql check` holds every file against its header and the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import asyncpg

from service.db import Connection
from service.db_errors import CONSTRAINTS
from service.queries import q
from service.statements import FOLDER, HeaderError, Statement, read

STUB = Path(__file__).with_name("queries.pyi")
# SQL's names of types → PostgreSQL's own, where they differ.
NAMES = {"bigint": "int8", "integer": "int4", "boolean": "bool", "double precision": "float8"}
PYTHON = {
    "int8": "int",
    "int4": "int",
    "bool": "bool",
    "float8": "float",
    "text": "str",
    "bytea": "bytes",
    "timestamptz": "datetime",
    "json": "Fragment",
    "jsonb": "Fragment",
}
# How many columns a statement may give, by what its header says it returns.
ANY = range(1, 1600)
COLUMNS = {"count": range(1), "value": range(1, 2), "row": ANY, "row?": ANY, "rows": ANY, "stream": ANY}
STUB_HEAD = """\
# Made by `python -m service sql check --write` from sql/ and the migrated schema; not edited by hand.
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Literal, TypedDict

from orjson import Fragment

from service.db import Database, Executor
"""


@dataclass(frozen=True)
class Catalogue:
    """The names that a header may use, and the columns that may be NULL."""

    constraints: set[str]
    indexes: set[str]
    nullable: set[str]


@dataclass(frozen=True)
class Prepared:
    """A statement as the server understands it: its parameters' types and its columns."""

    statement: Statement
    parameters: list[str]
    columns: dict[str, str]


async def check(connection: Connection, *, folder: Path = FOLDER, stub: Path = STUB, write: bool = False) -> list[str]:
    """Prepare every file and compare it with its header, and the stub with all of them.

    write: renew the stub, where every file holds.
    Gives what does not hold, a line each: file, line, what to do.
    """
    catalogue = await _catalogue(connection)
    prepared: list[Prepared] = []
    problems: list[str] = []
    for path in sorted(folder.rglob("*.sql")):
        try:
            statement = read(path, folder=folder)
            if statement.header.returns == "script":
                continue
            prepared.append(await _prepare(connection, statement))
            problems += _compare(prepared[-1], catalogue)
        except HeaderError as error:
            problems.append(str(error))
    return problems or _check_stub(_stub(prepared, catalogue), stub, write=write)


def _check_stub(text: str, stub: Path, *, write: bool) -> list[str]:
    if stub.exists() and stub.read_text(encoding="utf-8") == text:
        return []
    if not write:
        return [f"{stub}: is not what the files and the schema say: run `python -m service sql check --write`"]
    stub.write_text(text, encoding="utf-8")
    return []


async def _catalogue(connection: Connection) -> Catalogue:
    names: defaultdict[str, set[str]] = defaultdict(set)
    for row in await q.dba.names(connection):
        names[row["kind"]].add(row["name"])
    return Catalogue(names["constraint"] | names["index"], names["index"], names["nullable"])


async def _prepare(connection: Connection, statement: Statement) -> Prepared:
    for text in statement.texts.values():
        try:
            prepared = await connection.prepare(text)
        except asyncpg.PostgresError as error:
            line = statement.line + text.count("\n", 0, int(getattr(error, "position", None) or 1))
            raise HeaderError(f"{statement.path}:{line}: {' '.join(str(error).split())}") from None
    return Prepared(
        statement,
        [kind.name for kind in prepared.get_parameters()],
        {column.name: column.type.name for column in prepared.get_attributes()},
    )


def _compare(prepared: Prepared, catalogue: Catalogue) -> Iterator[str]:
    statement = prepared.statement
    for name, problem in _differences(prepared, catalogue):
        yield f"{statement.path}:{statement.header.lines.get(name, statement.line)}: {name}: {problem}"


def _differences(prepared: Prepared, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Give what does not hold of each field, or of the columns."""
    header = prepared.statement.header
    declared = [_server_name(parameter.type) for parameter in header.params]
    for number, (said, found) in enumerate(zip_longest(declared, prepared.parameters), start=1):
        if said != found:
            yield "params", f"${number} is {found or 'not used'} to the server, and {said or 'nothing'} in the header"
    if len(prepared.columns) not in COLUMNS[header.returns]:
        yield "returns", f"{header.returns} does not go with {len(prepared.columns)} columns"
    for field, types in (("params", declared), ("columns", prepared.columns.values())):
        for kind in types:
            if kind.removesuffix("[]") not in PYTHON:
                yield field, f"{kind} is a type that workbench.PYTHON does not know"
    yield from (("index", f"the schema has no {name}") for name in header.index if name not in catalogue.indexes)
    yield from _compare_raises(header.raises, catalogue)


def _compare_raises(raises: dict[str, str], catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    for name, code in raises.items():
        if name not in catalogue.constraints:
            yield "raises", f"the schema has no {name}"
        elif name not in CONSTRAINTS or CONSTRAINTS[name]().code != code:
            yield "raises", f"db_errors.CONSTRAINTS does not say {name} -> {code}"


def _server_name(kind: str) -> str:
    kind = kind.replace("?[]", "[]")
    name = kind.removesuffix("[]")
    return NAMES.get(name, name) + kind[len(name) :]


def _python_name(kind: str) -> str:
    element = kind.removesuffix("[]")
    name = PYTHON[_server_name(element.removesuffix("?"))] + (" | None" if element.endswith("?") else "")
    return f"Sequence[{name}]" if kind.endswith("[]") else name


def _stub(prepared: list[Prepared], catalogue: Catalogue) -> str:
    """Give the stub's text: a class for each kind of row, for each list and for each room."""
    classes: list[str] = []
    rooms: dict[str, list[str]] = {}
    for one in prepared:
        room, _, name = one.statement.name.partition(".")
        if one.statement.header.returns in {"row", "row?", "rows", "stream"}:
            classes.append(_row(one, catalogue))
        if one.statement.header.sorts:
            classes.append(_sorted(one))
            member = f"    {name}: _{_class_name(one.statement)}\n"
        elif one.statement.header.returns == "stream":
            classes.append(_streamed(one))
            member = f"    {name}: _{_class_name(one.statement)}\n"
        else:
            member = _method(name, one)
        rooms.setdefault(room, []).append(member)
    classes += [f"class _{room.title()}:\n{''.join(members)}" for room, members in rooms.items()]
    classes.append("class _Queries:\n" + "".join(f"    {room}: _{room.title()}\n" for room in rooms))
    return "\n".join([STUB_HEAD, *classes, "q: _Queries\n"])


def _class_name(statement: Statement) -> str:
    return statement.name.title().replace(".", "").replace("_", "")


def _row(one: Prepared, catalogue: Catalogue) -> str:
    columns = [
        f"    {name}: {_python_name(kind)}{' | None' if name in catalogue.nullable else ''}\n"
        for name, kind in one.columns.items()
    ]
    return f"class {_class_name(one.statement)}Row(TypedDict):\n{''.join(columns)}"


def _sorted(one: Prepared) -> str:
    sorts = ", ".join(f'"{sort}"' for sort in one.statement.texts)
    values = {"sort": f"Literal[{sorts}]"}
    return f"class _{_class_name(one.statement)}:\n{_method('__call__', one, values)}"


def _streamed(one: Prepared) -> str:
    name = _class_name(one.statement)
    method = _method("stream", one, gives=f"AsyncGenerator[Sequence[{name}Row]]")
    method = method.replace("async def", "def").replace("db: Executor", "db: Database")
    return f"class _{name}:\n{method}{_method('estimate', one, gives='int')}"


def _method(name: str, one: Prepared, values: dict[str, str] | None = None, *, gives: str = "") -> str:
    values = dict(values or {})
    for parameter in one.statement.header.params:
        values[parameter.name] = _python_name(parameter.type) + (" | None" if parameter.nullable else "")
    keywords = "".join(f"        {name}: {kind},\n" for name, kind in values.items())
    listed = f"        *,\n{keywords}" if keywords else ""
    return (
        f"    async def {name}(\n        self,\n        db: Executor,\n{listed}    ) -> {gives or _gives(one)}: ...\n"
    )


def _gives(one: Prepared) -> str:
    match one.statement.header.returns:
        case "row":
            return f"{_class_name(one.statement)}Row"
        case "row?":
            return f"{_class_name(one.statement)}Row | None"
        case "rows":
            return f"Sequence[{_class_name(one.statement)}Row]"
        case "value":
            return _python_name(next(iter(one.columns.values())))
        case _:
            return "int"
