"""What the server makes of the statements: their parameters, columns and tables, and the names in its schema."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from service.db.headers import HeaderError
from service.db.pool import Connection
from service.db.queries import q
from service.db.statements import Statement
from service.dba.explain import nodes, planned

# SQL's names of types → PostgreSQL's own, where they differ.
NAMES = {"bigint": "int8", "integer": "int4", "boolean": "bool", "double precision": "float8"}


@dataclass(frozen=True)
class Catalogue:
    """The schema's names: constraints and indexes with their tables, columns that may be NULL, extensions."""

    constraints: Mapping[str, str]
    indexes: Mapping[str, str]
    nullable: frozenset[str]
    extensions: frozenset[str]


@dataclass(frozen=True)
class Prepared:
    """A statement as the server understands it: its parameters' types, its columns, what it reads and writes."""

    statement: Statement
    parameters: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None
    """Name → type; None where the server cannot prepare it, as it lacks an extension."""
    twice: tuple[str, ...] = ()
    """Columns that share a name, of which only one would be seen."""
    tables: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    @property
    def is_known(self) -> bool:
        """Whether the server could prepare it."""
        return self.columns is not None


async def catalogue(connection: Connection) -> Catalogue:
    """Read the schema's names."""
    names: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in await q.dba.names(connection):
        names[row["kind"]][row["name"]] = row["of_table"] or ""
    indexes = names["index"]
    return Catalogue(
        names["constraint"] | indexes, indexes, frozenset(names["nullable"]), frozenset(names["extension"])
    )


async def prepare(connection: Connection, statement: Statement, known: Catalogue) -> Prepared:
    """Prepare every form of a statement; HeaderError with file and line where the server refuses it."""
    if statement.header.extension and statement.header.extension not in known.extensions:
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
    except asyncpg.PostgresError as error:  # this role may not
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
    """Give the tables that the plan reads and those that it writes; a plan without values leaves nothing out."""
    found = list(nodes(await planned(connection, statement, types=types)))
    tables = {name for node in found if not (name := node.get("Relation Name", "pg_")).startswith("pg_")}
    return frozenset(tables), frozenset(one["Relation Name"] for one in found if one["Node Type"] == "ModifyTable")


def server_name(kind: str) -> str:
    """Give the server's name of a header's type."""
    kind = kind.replace("?[]", "[]")
    name = kind.removesuffix("[]")
    return NAMES.get(name, name) + kind[len(name) :]
