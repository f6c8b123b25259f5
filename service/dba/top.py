"""`sql top`: what the statements cost, from pg_stat_statements, joined to the files by their tags."""

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
class Figures:
    """What one statement has cost since the figures were last reset."""

    name: str
    calls: int
    total_ms: float
    mean_ms: float
    rows: int
    hit_percent: float | None
    """How many of the blocks that it read were in memory."""
    spilled_blocks: int


async def figures(connection: Connection) -> list[Figures]:
    """Give each statement's figures, those without a tag together; UnavailableError says how to switch them on."""
    try:
        rows = await q.dba.statements(connection)
    except ServiceError as error:
        if isinstance(
            error.__cause__, asyncpg.UndefinedTableError | asyncpg.ObjectNotInPrerequisiteStateError
        ):  # it was not created here, or not loaded
            raise UnavailableError(MISSING) from error
        raise
    return [
        Figures(
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


def ordered(found: Iterable[Figures], *, by: str) -> list[Figures]:
    """Order them, the dearest first; what is no statement of the service comes last."""
    return sorted(found, key=lambda one: (one.name == OTHER, -getattr(one, COLUMNS[by]), one.name))


def table(found: Iterable[Figures]) -> str:
    """Give them as lines of text."""
    lines = [
        f"{'statement':32} {'calls':>10} {'total ms':>12} {'mean ms':>10} {'rows':>12} {'hit %':>6} {'spilled':>8}"
    ]
    for one in found:
        hit = "" if one.hit_percent is None else f"{one.hit_percent:.1f}"
        lines.append(
            f"{one.name:32} {one.calls:10} {one.total_ms:12.1f} {one.mean_ms:10.3f} {one.rows:12} {hit:>6}"
            f" {one.spilled_blocks or '':>8}"
        )
    return "".join(f"{line.rstrip()}\n" for line in lines)
