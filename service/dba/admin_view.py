"""Lists the statements with their costs, and fetches generic plans, for administrators over HTTP."""

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
    """Return `{items, figures_missing}`: every statement, with the cost of each of its sorts."""
    await asyncio.to_thread(callers)  # parses the source on the first call
    try:
        async with db.connection() as connection:
            entries = await catalog.entries(connection)
            costs, missing = await _costs(connection)
    except HeaderError as error:
        raise UnavailableError("The database schema does not match this release.") from error
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    return {
        "items": [{**entry.as_dict(), "figures": costs[entry.statement.name]} for entry in entries],
        "figures_missing": missing,
    }


async def _costs(connection: Connection) -> tuple[defaultdict[str, list[dict[str, Any]]], str | None]:
    costs: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        for cost in top.ordered(await top.costs(connection), by="total"):
            costs[cost.name.partition(" ")[0]].append(asdict(cost))
    except UnavailableError as error:
        return costs, error.detail
    return costs, None


async def plan(db: Database, name: str) -> dict[str, Any]:
    """Return `{name, file, sentence, plan, lines}` of a statement's generic plan, without running it.

    Raises: NotFoundError if there is no such statement.
    """
    statement, sort = explain.find(name)
    try:
        async with db.connection() as connection:
            lines = await explain.explain(connection, statement, sort)
            nodes = await explain.explain(connection, statement, sort, form="json")
    except StartError as error:
        raise UnavailableError("The database returned no plan of this statement.") from error
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    return {
        "name": f"{statement.name} {sort}".rstrip(),
        "file": catalog.relative_path(statement.path),
        "sentence": statement.header.sentence,
        "plan": nodes["Plan"],
        "lines": lines,
    }
