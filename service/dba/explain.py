"""Fetches the plan of a statement, with values or without, in a transaction that is rolled back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

import asyncpg
import orjson

from service.core.errors import NotFoundError, StartError
from service.db.headers import Parameter
from service.db.pool import PLANNED_EACH_TIME, Connection
from service.db.queries import q
from service.db.statements import Statement, read_all

Values: TypeAlias = Mapping[str, str | None]
"""The value of each parameter by its name, in PostgreSQL's text form for its type."""
Format: TypeAlias = Literal["text", "json"]
NAME = "workbench"


def find(name: str) -> tuple[Statement, str]:
    """Return a statement and its sort by their name, `tasks.list title`; without a sort, the first one.

    Raises: NotFoundError, with similar names.
    """
    path, _, sort = " ".join(name.split()).partition(" ")
    statements = {statement.name: statement for statement in read_all()}
    if path not in statements:
        similar = " or ".join(get_close_matches(path[:100], statements, n=3))
        raise NotFoundError(f"There is no statement {path[:100]!r}{f': is it {similar}?' if similar else '.'}")
    statement = statements[path]
    if statement.header.returns == "script":
        raise NotFoundError(f"{path} is a script for psql, and has no plan.")
    if sort not in statement.texts and sort:
        sorts = ", ".join(filter(None, statement.texts)) or "none"
        raise NotFoundError(f"{path} has no sort {sort[:100]!r}; it has {sorts}.")
    return statement, sort or next(iter(statement.texts))


def parse_values(statement: Statement, text: str) -> Values:
    """Parse a statement's values from a JSON object by name, or a JSON array by position.

    Raises: StartError that says which value the statement does not accept.
    """
    names = [parameter.name for parameter in statement.header.params]
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StartError(f"--params takes a JSON object or array: {error}") from None
    if isinstance(values, list):
        if len(values) != len(names):
            raise StartError(
                f"{statement.name} takes {len(names)} values and got {len(values)}: {describe_params(statement)}"
            )
        values = dict(zip(names, values, strict=True))
    if not isinstance(values, dict):
        raise StartError(f"--params takes a JSON object or array: {describe_params(statement)}")
    if unknown := values.keys() - set(names):
        raise StartError(f"{statement.name} has no {', '.join(sorted(unknown))[:200]}: {describe_params(statement)}")
    return {one.name: _check_characters(one, _value(one, values.get(one.name))) for one in statement.header.params}


def describe_params(statement: Statement) -> str:
    """Return the names and types of a statement's parameters."""
    types = (f"{one.name} {one.type}{'?' * one.nullable}" for one in statement.header.params)
    return ", ".join(types) or "it takes none"


def _value(parameter: Parameter, value: Any) -> str | None:
    if value is None:
        if not parameter.nullable:
            raise StartError(f"{parameter.name} takes a value of type {parameter.type}")
        return None
    if parameter.type.endswith("[]"):
        if not isinstance(value, list):
            raise StartError(f"{parameter.name} takes a JSON array of {parameter.type.removesuffix('[]')}")
        is_json = parameter.type.startswith("json")
        return "{" + ",".join("NULL" if one is None else _quoted(_text(one, is_json=is_json)) for one in value) + "}"
    return _text(value, is_json=parameter.type in {"json", "jsonb"})


def _check_characters(parameter: Parameter, value: str | None) -> str | None:
    if value is not None and re.search(r"[\x00\ud800-\udfff]", value):
        raise StartError(f"{parameter.name} takes no NUL and no lone surrogate")
    return value


def _text(value: Any, *, is_json: bool) -> str:
    return value if isinstance(value, str) and not is_json else json.dumps(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


async def explain(
    connection: Connection,
    statement: Statement,
    sort: str = "",
    values: Values | None = None,
    *,
    analyze: bool = False,
    generic: bool = False,
    form: Format = "text",
) -> Any:
    """Return a plan as lines of text or as JSON; without values it is the generic plan.

    analyze: run the statement, and roll it back.
    Raises: StartError with the server's message if it has no plan.
    """
    try:
        return await fetch_plan(connection, statement, sort, values, analyze=analyze, generic=generic, form=form)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StartError(f"{statement.name}: {' '.join(str(error).split())[:500]}") from error


async def fetch_plan(
    connection: Connection,
    statement: Statement,
    sort: str = "",
    values: Values | None = None,
    *,
    analyze: bool = False,
    generic: bool = False,
    form: Format = "json",
    types: Sequence[str] | None = None,
) -> Any:
    """Return a plan as `explain` does, and let the driver's errors pass.

    types: the parameters' types, in place of the header's.
    """
    async with prepared(connection, statement, sort, types=types) as call:
        mode = "force_generic_plan" if generic or values is None else "force_custom_plan"
        for name, value in {**(PLANNED_EACH_TIME if statement.header.planned else {}), "plan_cache_mode": mode}.items():
            await q.dba.set_for_transaction(connection, name=name, value=value)
        options = f"analyze {analyze}, buffers {analyze}, format {form}"
        rows = await connection.fetch(f"explain ({options}) {await call(values)}")
    if form == "text":
        return [row[0] for row in rows]
    return orjson.loads(orjson.dumps(rows[0][0]) if isinstance(rows[0][0], orjson.Fragment) else rows[0][0])[0]


@asynccontextmanager
async def prepared(
    connection: Connection, statement: Statement, sort: str = "", *, types: Sequence[str] | None = None
) -> AsyncIterator[Callable[[Values | None], Awaitable[str]]]:
    """Prepare a statement in a transaction that is rolled back; yield a function from values to `execute …`."""
    text = statement.texts[sort or next(iter(statement.texts))]
    if types is None:
        types = [parameter.type.replace("?", "") for parameter in statement.header.params]

    kinds = f"({', '.join(types)}) " if types else ""

    async def call(values: Values | None) -> str:
        arguments = ["null"] * len(types)
        if values is not None:
            arguments = [
                await _argument(connection, number, kind, values[parameter.name])
                for number, (kind, parameter) in enumerate(zip(types, statement.header.params, strict=True))
            ]
        return f"execute {NAME}({', '.join(arguments)})" if arguments else f"execute {NAME}"

    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.fetch(f"prepare {NAME} {kinds}as {text}")
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            yield call
        finally:
            await savepoint.rollback()
            await connection.execute(f"deallocate {NAME}")  # a prepared statement outlives its transaction
    finally:
        await transaction.rollback()


async def _argument(connection: Connection, number: int, kind: str, value: str | None) -> str:
    """Store a value in a setting of the transaction, and return SQL that reads it; values never become SQL."""
    if value is None:
        return "null"
    setting = f"{NAME}.p{number}"
    await q.dba.set_for_transaction(connection, name=setting, value=value)
    return f"current_setting('{setting}')::{kind}"


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return every node of a plan, each before its children."""
    yield from _with_children(plan["Plan"])


def _with_children(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _with_children(child)
