"""Asks the server about statements (parameters, columns, tables) and about the names in its schema."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from service.db.headers import HeaderError
from service.db.pool import Connection
from service.db.queries import q
from service.db.statements import Statement
from service.dba.explain import fetch_plan, nodes

# PostgreSQL's internal names of types that SQL calls otherwise.
SERVER_NAMES = {"bigint": "int8", "integer": "int4", "boolean": "bool", "double precision": "float8"}
SQL_NAMES = {internal: name for name, internal in SERVER_NAMES.items()}


@dataclass(frozen=True)
class Schema:
    """The names of a schema: constraints and indexes with their tables, nullable columns, extensions."""

    constraints: Mapping[str, str]
    indexes: Mapping[str, str]
    nullable: frozenset[str]
    extensions: frozenset[str]


@dataclass(frozen=True)
class Prepared:
    """A statement as the server prepared it: its parameters' types, its columns, the tables it reads and writes."""

    statement: Statement
    parameters: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None
    """The type of each column; None if the server lacks the extension that the statement needs."""
    duplicate_columns: tuple[str, ...] = ()
    """The names that several columns share: the driver shows only one of them."""
    tables: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    @property
    def is_prepared(self) -> bool:
        """Whether the server could prepare the statement."""
        return self.columns is not None


async def read_schema(connection: Connection) -> Schema:
    """Read the names of the schema."""
    names: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in await q.dba.names(connection):
        names[row["kind"]][row["name"]] = row["of_table"] or ""
    indexes = names["index"]
    return Schema(names["constraint"] | indexes, indexes, frozenset(names["nullable"]), frozenset(names["extension"]))


async def prepare(connection: Connection, statement: Statement, schema: Schema) -> Prepared:
    """Prepare every sort of a statement.

    Raises: HeaderError with file and line if the server refuses one.
    """
    if statement.header.extension and statement.header.extension not in schema.extensions:
        return Prepared(statement)
    for text in statement.texts.values():
        try:
            prepared = await connection.prepare(text)
        except asyncpg.PostgresError as error:
            raise _refused(statement, text, error) from None
    names = Counter(column.name for column in prepared.get_attributes())
    types = tuple(kind.name for kind in prepared.get_parameters())
    try:
        tables, written = await _tables(connection, statement, types)
    except asyncpg.PostgresError as error:  # this role lacks a privilege
        raise _refused(statement, "", error) from None
    return Prepared(
        statement,
        types,
        {column.name: column.type.name for column in prepared.get_attributes()},
        tuple(name for name, number in names.items() if number > 1),
        tables,
        written,
    )


def _refused(statement: Statement, text: str, error: asyncpg.PostgresError) -> HeaderError:
    line = statement.line + text.count("\n", 0, int(getattr(error, "position", None) or 1))
    return HeaderError(f"{statement.path}:{line}: {' '.join(str(error).split())}")


async def _tables(
    connection: Connection, statement: Statement, types: tuple[str, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the tables that the generic plan reads and those that it writes: it leaves no branch out."""
    all_nodes = list(nodes(await fetch_plan(connection, statement, types=types)))
    tables = {name for node in all_nodes if not (name := node.get("Relation Name", "pg_")).startswith("pg_")}
    return frozenset(tables), frozenset(
        node["Relation Name"] for node in all_nodes if node["Node Type"] == "ModifyTable"
    )


def server_name(kind: str) -> str:
    """Return PostgreSQL's internal name of a type in a header."""
    return _renamed(kind.replace("?[]", "[]"), SERVER_NAMES)


def sql_name(kind: str) -> str:
    """Return the SQL name of a type, from PostgreSQL's internal one."""
    return _renamed(kind, SQL_NAMES)


def _renamed(kind: str, names: Mapping[str, str]) -> str:
    element = kind.removesuffix("[]")
    return names.get(element, element) + kind[len(element) :]
