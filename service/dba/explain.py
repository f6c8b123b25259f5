"""Plans of single statements: with values or without, carried out or not, and always rolled back."""

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
from service.db.pool import Connection
from service.db.queries import q
from service.db.statements import Statement, read_all

Values: TypeAlias = Mapping[str, str | None]
"""By a parameter's name, as PostgreSQL writes a value of its type."""
Form: TypeAlias = Literal["text", "json"]
NAME = "workbench"


def find(name: str) -> tuple[Statement, str]:
    """Give a statement and its sort by their name, `tasks.list title`; NotFoundError."""
    path, _, sort = " ".join(name.split()).partition(" ")
    statements = {one.name: one for one in read_all()}
    if path not in statements:
        like = " or ".join(get_close_matches(path[:100], statements, n=3))
        raise NotFoundError(f"There is no statement {path[:100]!r}{f': is it {like}?' if like else '.'}")
    statement = statements[path]
    if statement.header.returns == "script":
        raise NotFoundError(f"{path} is a script for psql, and has no plan.")
    if sort not in statement.texts and sort:
        forms = ", ".join(filter(None, statement.texts)) or "none"
        raise NotFoundError(f"{path} has no sort {sort[:100]!r}; it has {forms}.")
    return statement, sort or next(iter(statement.texts))


def values_of(statement: Statement, given: str) -> Values:
    """Read values from a JSON object by name, or array by position; StartError says what does not hold."""
    names = [parameter.name for parameter in statement.header.params]
    try:
        said = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise StartError(f"--params takes a JSON object or array: {error}") from None
    if isinstance(said, list):
        if len(said) != len(names):
            raise StartError(f"{statement.name} takes {len(names)} values and got {len(said)}: {wanted(statement)}")
        said = dict(zip(names, said, strict=True))
    if not isinstance(said, dict):
        raise StartError(f"--params takes a JSON object or array: {wanted(statement)}")
    if unknown := said.keys() - set(names):
        raise StartError(f"{statement.name} has no {', '.join(sorted(unknown))[:200]}: {wanted(statement)}")
    return {one.name: _storable(one, _value(one, said.get(one.name))) for one in statement.header.params}


def wanted(statement: Statement) -> str:
    """Say which values a statement takes."""
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
        of_json = parameter.type.startswith("json")
        return "{" + ",".join("NULL" if one is None else _quoted(_text(one, of_json)) for one in value) + "}"
    return _text(value, parameter.type in {"json", "jsonb"})


def _storable(parameter: Parameter, value: str | None) -> str | None:
    if value is not None and re.search(r"[\x00\ud800-\udfff]", value):
        raise StartError(f"{parameter.name} takes no NUL and no lone surrogate")
    return value


def _text(value: Any, of_json: bool) -> str:
    if of_json:
        return json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value)


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
    form: Form = "text",
) -> Any:
    """Give the plan as lines of text or as JSON; StartError with what the server says where it gives none.

    Without values it is the generic plan. analyze: carry it out, and take it back.
    """
    try:
        return await planned(connection, statement, sort, values, analyze=analyze, generic=generic, form=form)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StartError(f"{statement.name}: {' '.join(str(error).split())[:500]}") from error


async def planned(
    connection: Connection,
    statement: Statement,
    sort: str = "",
    values: Values | None = None,
    *,
    analyze: bool = False,
    generic: bool = False,
    form: Form = "json",
    types: Sequence[str] | None = None,
) -> Any:
    """Give what `explain` gives; the driver's errors where it does not. types: in place of the header's."""
    async with held(connection, statement, sort, types=types) as call:
        mode = "force_generic_plan" if generic or values is None else "force_custom_plan"
        await q.dba.set_for_transaction(connection, name="plan_cache_mode", value=mode)
        options = f"analyze {analyze}, buffers {analyze}, format {form}"
        rows = await connection.fetch(f"explain ({options}) {await call(values)}")
    if form == "text":
        return [row[0] for row in rows]
    return orjson.loads(orjson.dumps(rows[0][0]) if isinstance(rows[0][0], orjson.Fragment) else rows[0][0])[0]


@asynccontextmanager
async def held(
    connection: Connection, statement: Statement, sort: str = "", *, types: Sequence[str] | None = None
) -> AsyncIterator[Callable[[Values | None], Awaitable[str]]]:
    """Hold a statement prepared, in a transaction that is rolled back; what it lends makes `execute …` with values."""
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
            await connection.execute(f"deallocate {NAME}")  # it outlives its transaction
    finally:
        await transaction.rollback()


async def _argument(connection: Connection, number: int, kind: str, value: str | None) -> str:
    """Put a value into a setting of the transaction, and give an expression for it: no value is part of a statement."""
    if value is None:
        return "null"
    setting = f"{NAME}.p{number}"
    await q.dba.set_for_transaction(connection, name=setting, value=value)
    return f"current_setting('{setting}')::{kind}"


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give every node of a plan, each before those under it."""
    yield from _under(plan["Plan"])


def _under(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _under(child)
