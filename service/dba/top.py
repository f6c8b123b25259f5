"""`sql top`: the cost of each statement from pg_stat_statements, joined to the files by their tags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from service.core.errors import ServiceError, UnavailableError
from service.db.pool import Connection
from service.db.queries import q

COLUMNS = {"total": "total_ms", "mean": "mean_ms", "calls": "calls", "rows": "rows"}
MISSING = (
    "pg_stat_statements is not on: add it to shared_preload_libraries in postgresql.conf, restart the server, and run "
    "`create extension pg_stat_statements` in this database (the embedded one cannot: it comes without)"
)
OTHER = "other"


@dataclass(frozen=True)
class StatementCost:
    """The cost of one statement since the last reset of pg_stat_statements."""

    name: str
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    hit_percent: float | None
    """The percentage of the read blocks that were in memory; None if it read no block."""
    spilled_blocks: int


async def costs(connection: Connection) -> list[StatementCost]:
    """Return the cost of each statement, and of all untagged ones together as `other`.

    Raises: UnavailableError with instructions if the database lacks pg_stat_statements.
    """
    try:
        rows = await q.dba.statements(connection)
    except ServiceError as error:
        # The extension was not created in this database, or the server did not load it.
        if isinstance(error.__cause__, asyncpg.UndefinedTableError | asyncpg.ObjectNotInPrerequisiteStateError):
            raise UnavailableError(MISSING) from error
        raise
    return [
        StatementCost(
            name=row["name"],
            calls=row["calls"],
            total_ms=row["total_ms"],
            mean_ms=row["mean_ms"],
            rows=row["row_count"],
            hit_percent=100 * row["blocks_hit"] / read if (read := row["blocks_hit"] + row["blocks_read"]) else None,
            spilled_blocks=row["blocks_spilled"],
        )
        for row in rows
    ]


def ordered(costs: Iterable[StatementCost], *, by: str) -> list[StatementCost]:
    """Return the costs in descending order of a column of COLUMNS, with `other` last."""
    return sorted(costs, key=lambda cost: (cost.name == OTHER, -getattr(cost, COLUMNS[by]), cost.name))


def table(costs: Iterable[StatementCost]) -> str:
    """Return the costs as a table of text."""
    lines = [
        f"{'statement':32} {'calls':>10} {'total ms':>12} {'mean ms':>10} {'rows':>12} {'hit %':>6} {'spilled':>8}"
    ]
    for cost in costs:
        hit = "" if cost.hit_percent is None else f"{cost.hit_percent:.1f}"
        lines.append(
            f"{cost.name:32} {cost.calls:10} {cost.total_ms:12.1f} {cost.mean_ms:10.3f} {cost.rows:12} {hit:>6}"
            f" {cost.spilled_blocks or '':>8}"
        )
    return "".join(f"{line.rstrip()}\n" for line in lines)
