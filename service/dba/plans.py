"""`sql plans`: compares every statement's plan on many skewed rows with its header and with the kept plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.db.headers import Parameter
from service.db.pool import Connection
from service.db.queries import q
from service.db.statements import PLANS_FOLDER, Statement, read_all
from service.dba.explain import NAME, Values, fetch_plan, nodes, parse_values, prepared

SAMPLES = PLANS_FOLDER / "samples.json"
LARGE_ROWS = 10_000
CALLS = 12  # PostgreSQL considers a generic plan from the sixth call on
DEFAULTS = {"boolean": False, "bytea": "", "text": "", "timestamptz": "2026-01-01T00:00:00Z"}


def planned_statements() -> list[Statement]:
    """Return the statements whose plans are kept: those on the service's own tables."""
    return [statement for statement in read_all() if not statement.name.startswith("dba.")]


async def verify(
    connection: Connection, *, report: Callable[[str], object] = lambda _: None
) -> tuple[list[str], dict[str, str]]:
    """Run every statement with its samples, and roll it back.

    Return the mismatches between plans and headers, a line each, and the shapes of each statement's plans by its name.
    report: called with the name of each statement before it runs.
    """
    large = {row["name"] for row in await q.dba.large_tables(connection, least_rows=LARGE_ROWS)}
    samples = read_samples()
    rows = await q.dba.last_task_id(connection)
    problems: list[str] = []
    shapes: dict[str, str] = {}
    for statement in planned_statements():
        report(statement.name)
        values_by_case = dict(cases(statement, samples, rows=rows))
        parts = []
        for sort in statement.texts:
            for case, values in values_by_case.items():
                title = ", ".join(filter(None, [f"{statement.name} {sort}".rstrip(), case]))
                plan = await fetch_plan(connection, statement, sort, values, analyze=True)
                parts.append(f"{title}\n{shape(plan)}")
                problems += (f"{statement.path}:1: {title}: {line}" for line in mismatches(plan, statement, large))
            may_be_generic = statement.header.sorts and not statement.header.planned
            if may_be_generic and await _generic_plans(connection, statement, sort, list(values_by_case.values())):
                problems.append(f"{statement.path}:1: {statement.name} {sort}: PostgreSQL chose a generic plan for it")
        shapes[statement.name] = "\n".join(parts)
    return problems, shapes


def compare(shapes: Mapping[str, str], *, folder: Path = PLANS_FOLDER, write: bool = False) -> list[str]:
    """Return which kept plans differ from the shapes, a line each.

    write: rewrite the kept plans instead.
    """
    kept = {path.stem: path for path in folder.glob("*.txt")}
    problems = []
    for name in sorted(shapes.keys() | kept.keys()):
        path = folder / f"{name}.txt"
        if name in shapes and name in kept and path.read_text(encoding="utf-8") == shapes[name]:
            continue
        if not write:
            problems.append(f"{path}:1: differs from the present plan: check why, then run `sql plans --write`")
        elif name in shapes:
            path.write_text(shapes[name], encoding="utf-8")
        else:
            path.unlink()
    return problems


def shape(plan: Mapping[str, Any]) -> str:
    """Return a plan's nodes and indexes, indented, a line each, without costs."""
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


def mismatches(plan: Mapping[str, Any], statement: Statement, large: set[str]) -> Iterator[str]:
    """Return the differences between a plan and its statement's header.

    large: the tables that a plan may read as a whole only if the header's `scans` names them.
    """
    header, all_nodes = statement.header, list(nodes(plan))
    used = {node["Index Name"] for node in all_nodes if "Index Name" in node}
    if header.index and used != set(header.index):
        yield f"it is read by {', '.join(sorted(used)) or 'no index'}, and the header says {', '.join(header.index)}"
    for node in all_nodes:
        table = node.get("Relation Name", "")
        if node["Node Type"] == "Seq Scan" and table in large and table not in header.scans:
            yield f"it reads all of {table}: give it an index, or say so by `scans: {table}`"
        if node.get("Sort Space Type") == "Disk" or node.get("Disk Usage") or node.get("Hash Batches", 1) > 1:
            yield f"{node['Node Type']} does not fit into work_mem"


def read_samples() -> dict[str, dict[str, Any]]:
    """Read the sample values of every statement."""
    samples: dict[str, dict[str, Any]] = json.loads(SAMPLES.read_text(encoding="utf-8"))
    return samples


def cases(statement: Statement, samples: Mapping[str, Mapping[str, Any]], *, rows: int) -> Iterator[tuple[str, Values]]:
    """Return the name and the values of each case with which a statement runs.

    A parameter without a sample is NULL if it may be, and otherwise the common sample `*` of its name.
    `{"of_rows": 0.5}` stands for half of `rows`, the number of tasks.
    """
    for case, sample in samples.get(statement.name, {"": {}}).items():
        values = {one.name: sample.get(one.name, _default(one, samples["*"])) for one in statement.header.params}
        scaled = {
            name: int(value["of_rows"] * rows) if isinstance(value, dict) and "of_rows" in value else value
            for name, value in values.items()
        }
        yield case, parse_values(statement, json.dumps(scaled))


def _default(parameter: Parameter, common: Mapping[str, Any]) -> Any:
    if parameter.nullable:
        return None
    if parameter.name in common:
        return common[parameter.name]
    return [] if parameter.type.endswith("[]") else DEFAULTS.get(parameter.type, 1)


async def _generic_plans(connection: Connection, statement: Statement, sort: str, values_of_cases: list[Values]) -> int:
    async with prepared(connection, statement, sort) as call:
        for number in range(CALLS):
            await connection.fetch(await call(values_of_cases[number % len(values_of_cases)]))
        return await q.dba.generic_plans(connection, name=NAME)
