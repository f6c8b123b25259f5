"""`sql plans`: holds every statement's plan on many skewed rows against its header, and keeps its shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.core.errors import StartError
from service.db.headers import Parameter
from service.db.pool import Connection
from service.db.queries import q
from service.db.statements import FOLDER, Statement, read_all
from service.dba.explain import NAME, Values, held, nodes, planned, values_of

SNAPSHOTS = FOLDER / "plans"
SAMPLES = SNAPSHOTS / "samples.json"
LARGE_ROWS = 10_000
CALLS = 12  # after five with a plan of their own PostgreSQL begins to weigh a generic one
OTHERWISE = {"boolean": False, "bytea": "", "text": "", "timestamptz": "2026-01-01T00:00:00Z"}


def kept() -> list[Statement]:
    """Give the statements whose plans are kept: those over the service's own tables."""
    return [one for one in read_all() if not one.name.startswith("dba.")]


async def hold(
    connection: Connection, *, said: Callable[[str], None] = lambda _: None
) -> tuple[list[str], dict[str, str]]:
    """Carry every statement out with its samples, and take it back.

    Gives what does not hold, a line each, and each statement's shapes by its name. said: is told each name.
    """
    large = {row["name"] for row in await q.dba.large_tables(connection, least_rows=LARGE_ROWS)}
    samples = _samples()
    rows = await q.dba.last_task_id(connection)
    problems: list[str] = []
    shapes: dict[str, str] = {}
    for statement in kept():
        said(statement.name)
        cases = dict(_cases(statement, samples, rows=rows))
        parts = []
        for sort in statement.texts:
            for case, values in cases.items():
                title = ", ".join(filter(None, [f"{statement.name} {sort}".rstrip(), case]))
                plan = await planned(connection, statement, sort, values, analyze=True)
                parts.append(f"{title}\n{shape(plan)}")
                problems += (f"{statement.path}:1: {title}: {fault}" for fault in faults(plan, statement, large))
            may_be_generic = statement.header.sorts and not statement.header.planned
            if may_be_generic and await _generic_plans(connection, statement, sort, list(cases.values())):
                problems.append(f"{statement.path}:1: {statement.name} {sort}: PostgreSQL chose a generic plan for it")
        shapes[statement.name] = "\n".join(parts)
    return problems, shapes


def compare(shapes: Mapping[str, str], *, folder: Path = SNAPSHOTS, write: bool = False) -> list[str]:
    """Give which snapshots differ from the shapes, a line each; write: renew them."""
    there = {path.stem: path for path in folder.glob("*.txt")}
    differing = []
    for name in sorted(shapes.keys() | there.keys()):
        path = folder / f"{name}.txt"
        if name in shapes and name in there and path.read_text(encoding="utf-8") == shapes[name]:
            continue
        if not write:
            differing.append(f"{path}:1: is not the plan there is now: look at it, then run `sql plans --write`")
        elif name in shapes:
            path.write_text(shapes[name], encoding="utf-8")
        else:
            path.unlink()
    return differing


def shape(plan: Mapping[str, Any]) -> str:
    """Give a plan's nodes and indexes, without figures: a line each, indented."""
    return "".join(f"{line}\n" for line in _shape(plan["Plan"], depth=1))


def _shape(node: Mapping[str, Any], *, depth: int) -> Iterator[str]:
    words = [node.get("Join Type", "").replace("Inner", ""), node["Node Type"]]
    if node["Node Type"] == "ModifyTable":
        words = [node["Operation"]]
    if node.get("Scan Direction") == "Backward":
        words.append("backward")
    if "Index Name" in node:
        words += ["using", node["Index Name"]]
    if "Relation Name" in node:
        words += ["on", node["Relation Name"]]
    if "CTE Name" in node:
        words += ["on", node["CTE Name"]]
    if "Subplan Name" in node:
        words.append(f"({node['Subplan Name']})")
    yield "  " * depth + " ".join(filter(None, words))
    for child in node.get("Plans", ()):
        yield from _shape(child, depth=depth + 1)


def faults(plan: Mapping[str, Any], statement: Statement, large: set[str]) -> Iterator[str]:
    """Give what does not go with the header."""
    header, found = statement.header, list(nodes(plan))
    used = {node["Index Name"] for node in found if "Index Name" in node}
    if header.index and used != set(header.index):
        yield f"it is read by {', '.join(sorted(used)) or 'no index'}, and the header says {', '.join(header.index)}"
    for node in found:
        table = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and table in large and table not in header.scans:
            yield f"it reads all of {table}: give it an index, or say so by `scans: {table}`"
        if node.get("Sort Space Type") == "Disk" or node.get("Disk Usage") or node.get("Hash Batches", 1) > 1:
            yield f"{node['Node Type']} does not fit into work_mem"


def _samples() -> dict[str, dict[str, Any]]:
    try:
        samples: dict[str, dict[str, Any]] = json.loads(SAMPLES.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StartError(
            f"{SAMPLES} is missing: `sql plans` needs a checkout of the repository, with its tests"
        ) from None
    return samples


def _cases(
    statement: Statement, samples: Mapping[str, Mapping[str, Any]], *, rows: int
) -> Iterator[tuple[str, Values]]:
    """Give values to carry a statement out with, by what the case is called.

    A parameter that no case names is NULL where it may be, else what `*` says of its name; `{"of_rows": 0.5}` is half
    of the number of tasks.
    """
    for case, given in samples.get(statement.name, {"": {}}).items():
        values = {one.name: given.get(one.name, _otherwise(one, samples["*"])) for one in statement.header.params}
        scaled = {
            name: int(value["of_rows"] * rows) if isinstance(value, dict) and "of_rows" in value else value
            for name, value in values.items()
        }
        yield case, values_of(statement, json.dumps(scaled))


def _otherwise(parameter: Parameter, common: Mapping[str, Any]) -> Any:
    if parameter.nullable:
        return None
    if parameter.name in common:
        return common[parameter.name]
    return [] if parameter.type.endswith("[]") else OTHERWISE.get(parameter.type, 1)


async def _generic_plans(connection: Connection, statement: Statement, sort: str, cases: list[Values]) -> int:
    async with held(connection, statement, sort) as call:
        for number in range(CALLS):
            await connection.fetch(await call(cases[number % len(cases)]))
        return await q.dba.generic_plans(connection, name=NAME)
