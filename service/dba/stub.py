"""The types that Python sees of the statements: the text of `service/db/queries.pyi`."""

from __future__ import annotations

from pathlib import Path

from service.db.statements import Statement
from service.dba.schema import Catalogue, Prepared, server_name

STUB = Path(__file__).parents[1] / "db" / "queries.pyi"
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
STUB_HEAD = """\
# Made by `python -m service sql check --write` from sql/ and the migrated schema; not edited by hand.
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from orjson import Fragment

from service.db.pool import Database, Executor
"""


def render(prepared: list[Prepared], known: Catalogue) -> str:
    """Give the stub's text: a class for each kind of row, for each list and for each room."""
    classes: list[str] = []
    state: dict[str, list[str]] = {}
    for one in prepared:
        room, _, name = one.statement.name.partition(".")
        if one.statement.header.returns in {"row", "row?", "rows", "stream"} and not one.statement.header.extension:
            classes.append(_row(one, known))
        if one.statement.header.sorts:
            classes.append(_sorted(one))
            member = f"    {name}: _{class_name(one.statement)}\n"
        elif one.statement.header.returns == "stream":
            classes.append(_streamed(one))
            member = f"    {name}: _{class_name(one.statement)}\n"
        else:
            member = _method(name, one)
        state.setdefault(room, []).append(member)
    classes += [f"class _{room.title()}:\n{''.join(members)}" for room, members in state.items()]
    classes.append("class _Queries:\n" + "".join(f"    {room}: _{room.title()}\n" for room in state))
    return "\n".join([STUB_HEAD, *classes, "q: _Queries\n"])


def class_name(statement: Statement) -> str:
    """Give how the classes of a statement begin."""
    return statement.name.title().replace(".", "").replace("_", "")


def _row(one: Prepared, known: Catalogue) -> str:
    nullable = known.nullable | set(one.statement.header.nullable)
    columns = [
        f"    {name}: {_python_name(kind)}{' | None' if name in nullable else ''}\n"
        for name, kind in (one.columns or {}).items()
    ]
    return f"class {class_name(one.statement)}Row(TypedDict):\n{''.join(columns)}"


def _sorted(one: Prepared) -> str:
    sorts = ", ".join(f'"{sort}"' for sort in one.statement.texts)
    values = {"sort": f"Literal[{sorts}]"}
    return f"class _{class_name(one.statement)}:\n{_method('__call__', one, values)}"


def _streamed(one: Prepared) -> str:
    name = class_name(one.statement)
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
    if one.statement.header.extension:  # its columns are known where the server has it
        return "Sequence[Any]"
    match one.statement.header.returns:
        case "row":
            return f"{class_name(one.statement)}Row"
        case "row?":
            return f"{class_name(one.statement)}Row | None"
        case "rows":
            return f"Sequence[{class_name(one.statement)}Row]"
        case "value":
            (name, kind), *_ = (one.columns or {}).items()
            return _python_name(kind or "") + (" | None" if name in one.statement.header.nullable else "")
        case _:
            return "int"


def _python_name(kind: str) -> str:
    element = kind.removesuffix("[]")
    name = PYTHON[server_name(element.removesuffix("?"))] + (" | None" if element.endswith("?") else "")
    return f"Sequence[{name}]" if kind.endswith("[]") else name
