"""The catalogue with live figures, and plans without values: what administrators see of the statements over HTTP."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from service.core.errors import StartError, UnavailableError
from service.db.errors import DRIVER_ERRORS, translate
from service.db.headers import HeaderError
from service.db.pool import Connection, Database
from service.dba import catalog, explain, top
from service.dba.callers import callers


async def listing(db: Database) -> dict[str, Any]:
    """Give `{items, figures_missing}`: every statement, with the figures of each of its sorts."""
    await asyncio.to_thread(callers)  # reads the source, once
    try:
        async with db.connection() as connection:
            entries = await catalog.entries(connection)
            figures, missing = await _figures(connection)
    except HeaderError as error:
        raise UnavailableError("The database's schema is not this release's.") from error
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    return {
        "items": [{**entry.described(), "figures": figures[entry.statement.name]} for entry in entries],
        "figures_missing": missing,
    }


async def _figures(connection: Connection) -> tuple[defaultdict[str, list[dict[str, Any]]], str | None]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        for one in top.ordered(await top.figures(connection), by="total"):
            found[one.name.partition(" ")[0]].append(asdict(one))
    except UnavailableError as error:
        return found, error.detail
    return found, None


async def plan(db: Database, name: str) -> dict[str, Any]:
    """Give `{name, file, sentence, plan, lines}`; nothing is carried out. NotFoundError."""
    statement, sort = explain.find(name)
    try:
        async with db.connection() as connection:
            lines = await explain.explain(connection, statement, sort)
            nodes = await explain.explain(connection, statement, sort, form="json")
    except StartError as error:
        raise UnavailableError("The database gives no plan of it.") from error
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    return {
        "name": f"{statement.name} {sort}".rstrip(),
        "file": catalog.shown(statement.path),
        "sentence": statement.header.sentence,
        "plan": nodes["Plan"],
        "lines": lines,
    }
