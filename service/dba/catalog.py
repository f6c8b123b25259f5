"""`sql catalog`: what each statement is, takes, gives and touches, and which routes and commands run it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.db.pool import Connection
from service.db.statements import FOLDER, Statement, read_all
from service.dba.callers import callers
from service.dba.schema import Catalogue, Prepared, catalogue, prepare

FILE = FOLDER / "CATALOG.md"
PLANS = FOLDER / "plans"
HEAD = """\
# The catalogue of statements

Made by `python -m service sql catalog --write` from the headers, the migrated schema and the code; not edited by
hand. A test fails where it is stale. What the fields mean stands in [README.md](README.md); `plan` is the plan on a
million skewed tasks.

"""
SQL_NAMES = {"int8": "bigint", "int4": "integer", "bool": "boolean", "float8": "double precision"}


@dataclass(frozen=True)
class Entry:
    """One statement in the catalogue."""

    prepared: Prepared
    nullable: frozenset[str]
    callers: tuple[str, ...]

    @property
    def statement(self) -> Statement:
        """The statement itself."""
        return self.prepared.statement

    def described(self) -> dict[str, Any]:
        """Give all that is known of it, for machines."""
        header = self.statement.header
        return {
            "name": self.statement.name,
            "file": shown(self.statement.path),
            "sentence": header.sentence,
            "returns": header.returns,
            "params": [{"name": one.name, "type": one.type, "nullable": one.nullable} for one in header.params],
            "columns": [
                {"name": name, "type": kind, "nullable": is_null} for name, kind, is_null in self.columns() or ()
            ],
            "sorts": [sort for sort in self.statement.texts if sort],
            "reads": sorted(self.prepared.tables - self.prepared.written),
            "writes": sorted(self.prepared.written),
            "index": list(header.index),
            "scans": list(header.scans),
            "raises": header.raises,
            "notifies": header.notifies or None,
            "extension": header.extension or None,
            "why": header.why or None,
            "run_by": list(self.callers),
        }

    def columns(self) -> Iterator[tuple[str, str, bool]]:
        """Give each result column: name, SQL type, whether it may be null."""
        if self.statement.header.extension:  # known only where the server has it
            return
        for name, kind in (self.prepared.columns or {}).items():
            element = kind.removesuffix("[]")
            yield name, SQL_NAMES.get(element, element) + kind[len(element) :], name in self.nullable


async def entries(connection: Connection) -> list[Entry]:
    """Read the whole catalogue; HeaderError where a file does not hold."""
    known = await catalogue(connection)
    run = callers()
    return [await _entry(connection, statement, known, run) for statement in read_all()]


async def _entry(
    connection: Connection, statement: Statement, known: Catalogue, run: Mapping[str, tuple[str, ...]]
) -> Entry:
    script = statement.header.returns == "script"
    prepared = Prepared(statement) if script else await prepare(connection, statement, known)
    nullable = known.nullable | set(statement.header.nullable)
    return Entry(prepared, frozenset(nullable), run.get(statement.name, ()))


def shown(path: Path) -> str:
    """Give a file's path from the repository's root."""
    return str(path.relative_to(FOLDER.parent))


def markdown(listed: Iterable[Entry]) -> str:
    """Give the text of CATALOG.md."""
    state: defaultdict[str, list[Entry]] = defaultdict(list)
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for entry in listed:
        state[entry.statement.name.partition(".")[0]].append(entry)
        for caller in entry.callers:
            runs[caller].append(entry.statement.name)
    parts = [HEAD, "## What runs what\n\n| route or command | statements |\n|---|---|\n"]
    for caller, names in sorted(runs.items(), key=lambda one: (" /" not in one[0], one[0].partition(" ")[::-1])):
        parts.append(f"| `{caller}` | {', '.join(_link(name) for name in names)} |\n")
    for room, members in state.items():
        parts.append(f"\n## {room}\n")
        parts += [_section(entry) for entry in members]
    return "".join(parts)


def _link(name: str) -> str:
    return f"[{name}](#{name.replace('.', '')})"


def _section(entry: Entry) -> str:
    statement, header = entry.statement, entry.statement.header
    rows = {
        "returns": f"`{header.returns}`",
        "params": _typed((one.name, one.type, one.nullable) for one in header.params),
        "columns": _typed(entry.columns()),
        "sorts": _listed(sort for sort in statement.texts if sort),
        "reads": _listed(sorted(entry.prepared.tables - entry.prepared.written)),
        "writes": _listed(sorted(entry.prepared.written)),
        "index": _listed(header.index),
        "scans": _listed(header.scans),
        "raises": _listed(f"{name} -> {code}" for name, code in header.raises.items()),
        "notifies": _listed(filter(None, [header.notifies])),
        "extension": _listed(filter(None, [header.extension])),
        "run by": _listed(entry.callers),
        "plan": f"[{statement.name}.txt](plans/{statement.name}.txt)" * _has_plan(statement),
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items() if value)
    path = statement.path.relative_to(FOLDER)
    return f"\n### {statement.name}\n\n[{header.sentence}]({path})\n\n| | |\n|---|---|\n{table}"


def _has_plan(statement: Statement) -> bool:
    return (PLANS / f"{statement.name}.txt").exists()


def _typed(columns: Iterable[tuple[str, str, bool]]) -> str:
    return ", ".join(f"`{name} {kind}{'?' * nullable}`" for name, kind, nullable in columns)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
