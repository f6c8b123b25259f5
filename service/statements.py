"""Finds the statements under `sql/`, reads their headers, expands their sorts and runs them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from service import metrics
from service.db import UNHURRIED, Connection, Database, Executor, Transaction
from service.db_errors import DRIVER_ERRORS, ROLLED_BACK, translate
from service.timing import Stopwatch, measured

if TYPE_CHECKING:
    from prometheus_client import Histogram  # which service.metrics imports first, for all

Fetch: TypeAlias = Callable[[Connection], Awaitable[Any]]

FOLDER = Path(__file__).parent.parent / "sql"
RETURNS = ("value", "row", "row?", "rows", "stream", "count", "script")
STREAMED_ROWS = 200
AFTER = re.compile(r"/\* after \*/ (.*)")
SORT = re.compile(r"/\* sort \*/ (.*)")
FIRST_WORD = re.compile(r"\w+")


class HeaderError(Exception):
    """A file that does not keep to the conventions of sql/README.md; says which and where."""


@dataclass(frozen=True)
class Parameter:
    """One `$n`: its keyword in Python, its SQL type, and whether it may be NULL."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    sentence: str
    returns: str
    params: tuple[Parameter, ...] = ()
    sorts: dict[str, tuple[tuple[str, str], tuple[str, str]]] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    raises: dict[str, str] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    extension: str = ""
    planned: str = ""
    notifies: str = ""
    why: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    """Where each field begins."""


@dataclass(frozen=True)
class Statement:
    """One file: a callable that runs it with keyword arguments and gives what `returns` says."""

    name: str
    path: Path
    header: Header
    line: int
    """Where the statement begins in its file, behind the header."""
    texts: dict[str, str]
    """The text sent to the server, by sort (`-created_at`); a file without sorts has one, under the empty key."""

    async def __call__(self, db: Executor, *, sort: str = "", **values: Any) -> Any:
        """Run the statement; ServiceError where the database refuses it or is away."""
        fetch = partial(_fetch, self.texts[sort], self.header.returns, self._arguments(values), self._seconds)
        return await self._run(db, fetch)

    async def estimate(self, db: Executor, *, sort: str = "", **values: Any) -> int:
        """Give the planner's guess at how many rows there would be, without reading any."""
        text = f"explain (format json) {self.texts[sort]}"
        seconds = metrics.STATEMENTS.labels(f"{self.name} (estimate)")
        plan = await self._run(db, partial(_fetch, text, "value", self._arguments(values), seconds))
        return int(orjson.loads(orjson.dumps(plan))[0]["Plan"]["Plan Rows"])

    async def stream(self, db: Database, **values: Any) -> AsyncGenerator[Any]:
        """Give all rows as they are at one moment, STREAMED_ROWS at a time; the statement ends with whoever reads."""
        arguments = self._arguments(values)
        try:
            async with (
                db.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(UNHURRIED)
                async with aclosing(self._fetch_all(connection, arguments)) as batches:
                    async for rows in batches:
                        yield rows
        except DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def _fetch_all(self, connection: Connection, arguments: list[Any]) -> AsyncGenerator[Any]:
        spent = Stopwatch()
        try:
            with spent.running():
                prepared = await connection.prepare(self.texts[""])
                cursor = await prepared.cursor(*arguments)
                rows = await cursor.fetch(STREAMED_ROWS)
            while rows:
                yield rows
                with spent.running():
                    rows = await cursor.fetch(STREAMED_ROWS)
        finally:
            self._seconds.observe(spent.seconds)

    def _arguments(self, values: dict[str, Any]) -> list[Any]:
        names = [parameter.name for parameter in self.header.params]
        if wrong := values.keys() ^ names:
            raise TypeError(f"{self.name}: missing or unknown: {', '.join(sorted(wrong))}")
        return [values[name] for name in names]

    async def _run(self, db: Executor, fetch: Fetch) -> Any:
        try:
            with measured("db"):
                if isinstance(db, Database):
                    async with db.connection() as connection:
                        result = await self._again_if_rolled_back(connection, fetch)
                    if self.header.notifies:
                        db.changed()
                    return result
                if isinstance(db, Transaction):
                    result = await fetch(await db.connection())
                    db.notifies |= bool(self.header.notifies)
                    return result
                return await fetch(db)
        except DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def _again_if_rolled_back(self, connection: Connection, fetch: Fetch) -> Any:
        try:
            return await fetch(connection)
        except ROLLED_BACK:  # nothing is left of it, and whoever stood in its way goes on
            metrics.STATEMENT_ERRORS.labels(self.name, "rolled_back").inc()
            return await fetch(connection)

    @cached_property
    def _seconds(self) -> Histogram:
        return metrics.STATEMENTS.labels(self.name)

    def _translated(self, error: BaseException) -> BaseException:
        problem = translate(error)
        metrics.STATEMENT_ERRORS.labels(self.name, getattr(problem, "code", "internal")).inc()
        return problem


async def _fetch(text: str, returns: str, arguments: list[Any], seconds: Histogram, connection: Connection) -> Any:
    with seconds.time():
        if returns in {"row", "row?"}:
            return await connection.fetchrow(text, *arguments)
        if returns == "rows":
            return await connection.fetch(text, *arguments)
        if returns == "value":
            return await connection.fetchval(text, *arguments)
        return int((await connection.execute(text, *arguments)).rpartition(" ")[2])


def read(path: Path, *, folder: Path = FOLDER) -> Statement:
    """Read one file; HeaderError where its header does not hold, with the line."""
    name = ".".join(path.relative_to(folder).with_suffix("").parts)
    try:
        header, body, line = _split(path.read_text(encoding="utf-8"))
        texts = dict(_expand(header, body, line)) if header.sorts else {"": body}
    except UnicodeDecodeError as error:
        raise HeaderError(f"{path}:{error.object.count(10, 0, error.start) + 1}: {error}") from None
    except ValueError as error:
        raise HeaderError(f"{path}:{error}") from None
    return Statement(name, path, header, line, {sort: _tagged(text, name, sort) for sort, text in texts.items()})


def _tagged(text: str, name: str, sort: str) -> str:
    """Put the tag behind the first word: pg_stat_statements cuts off what stands before it."""
    return FIRST_WORD.sub(rf"\g<0> /* {f'{name} {sort}'.rstrip()} */", text, count=1)


def read_all(folder: Path = FOLDER) -> list[Statement]:
    """Read every file, in the order of their names."""
    return [read(path, folder=folder) for path in sorted(folder.rglob("*.sql"))]


def _split(text: str) -> tuple[Header, str, int]:
    lines = text.splitlines()
    length = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    comments = [line.removeprefix("--").removeprefix(" ") for line in lines[:length]]
    body = "\n".join(lines[length:]).rstrip().removesuffix(";")
    if not comments or not comments[0].endswith("."):
        raise ValueError("1: takes a comment that says in one sentence what the statement does")
    if not body:
        raise ValueError(f"{length + 1}: takes a statement")
    return _header(comments[0], _fields(comments[1:])), body, length + 1


def _fields(comments: list[str]) -> list[tuple[int, str, str]]:
    fields: list[tuple[int, str, str]] = []
    for line, comment in enumerate(comments, start=2):
        name, colon, value = comment.partition(":")
        if comment.startswith(" ") and fields:
            begun, field_name, before = fields[-1]
            fields[-1] = (begun, field_name, f"{before} {comment.strip()}")
        elif colon and name in FIELDS:
            fields.append((line, name, value.strip()))
        else:
            raise ValueError(f"{line}: {comment!r} is none of the fields {', '.join(FIELDS)}")
    return fields


def _header(sentence: str, fields: list[tuple[int, str, str]]) -> Header:
    said: dict[str, Any] = {}
    for line, name, value in fields:
        try:
            if name == "sort":
                said.setdefault("sorts", {}).update([_sort(value)])
            elif name in said:
                raise ValueError("is there already")
            else:
                said[name] = FIELDS[name](value)
        except ValueError as error:
            raise ValueError(f"{line}: `{name}`: {error}") from None
    if "returns" not in said:
        raise ValueError(f"1: `returns` is missing; it takes one of {', '.join(RETURNS)}")
    return Header(sentence=sentence, lines={name: line for line, name, _ in fields}, **said)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _returns(text: str) -> str:
    if text not in RETURNS:
        raise ValueError(f"takes one of {', '.join(RETURNS)}")
    return text


def _planned(text: str) -> str:
    if text != "each time":
        raise ValueError("takes `each time`: run it in `Database.snapshot()`")
    return text


def _parameters(text: str) -> tuple[Parameter, ...]:
    parameters = tuple(_parameter(part) for part in _listed(text))
    if len({parameter.name for parameter in parameters}) < len(parameters):
        raise ValueError("takes each NAME once")
    return parameters


def _parameter(text: str) -> Parameter:
    name, _, kind = text.partition(" ")
    if not name.isidentifier() or not kind.removesuffix("?"):
        raise ValueError(f"{text!r} takes NAME TYPE")
    return Parameter(name, kind.removesuffix("?"), kind.endswith("?"))


def _raises(text: str) -> dict[str, str]:
    return dict(_raise(part) for part in _listed(text))


def _raise(text: str) -> tuple[str, str]:
    constraint, arrow, code = text.partition(" -> ")
    if not arrow:
        raise ValueError(f"{text!r} takes CONSTRAINT -> CODE")
    return constraint, code


def _sort(text: str) -> tuple[str, tuple[tuple[str, str], tuple[str, str]]]:
    name, _, columns = text.partition(": ")
    pairs = [tuple(column.split(" ")) for column in columns.split(", ")]
    if [len(pair) for pair in pairs] != [2, 2]:
        raise ValueError(f"{text!r} takes NAME: COLUMN TYPE, COLUMN TYPE; the second column is the primary key")
    (column, kind), (key, key_kind) = pairs
    return name, ((column, kind), (key, key_kind))


FIELDS: dict[str, Callable[[str], Any]] = {
    "returns": _returns,
    "params": _parameters,
    "sort": _sort,
    "index": lambda text: tuple(_listed(text)),
    "raises": _raises,
    "nullable": lambda text: tuple(_listed(text)),
    "scans": lambda text: tuple(_listed(text)),
    "extension": str,
    "planned": _planned,
    "notifies": str,
    "why": str,
}
"""What a header may say, and how that is read."""


def _expand(header: Header, body: str, line: int) -> Iterator[tuple[str, str]]:
    number = {parameter.name: f"${i}" for i, parameter in enumerate(header.params, start=1)}
    if not {"after_value", "after_id"} <= number.keys():
        raise ValueError(f"{line}: `sort` takes the parameters after_value and after_id")
    value, key = number["after_value"], number["after_id"]
    expected = []
    for name, ((column, kind), (tie, tie_kind)) in header.sorts.items():
        for sign, operator, own, others, direction in (("-", "<=", 1, 0, "desc"), ("", ">=", 0, 1, "asc")):
            row = f"({value}::text::{kind}, {key}::{tie_kind}, {others})"
            after = f"({key}::{tie_kind} is null or ({column}, {tie}, {own}) {operator} {row})"
            order = f"{column} {direction}, {tie} {direction}"
            expected.append((after, order))
            yield f"{sign}{name}", SORT.sub(f"/* sort */ {order}", AFTER.sub(f"/* after */ {after}", body))
    written = (_written(AFTER, body), _written(SORT, body))
    if written != expected[0]:
        raise ValueError(
            "{}: the `after` and `sort` lines take the text of the first sort, descending: {} | {}".format(
                line, *expected[0]
            )
        )


def _written(marker: re.Pattern[str], body: str) -> str:
    lines = set(marker.findall(body))
    return str(lines.pop()) if len(lines) == 1 else ""


def load(folder: Path = FOLDER) -> SimpleNamespace:
    """Give every statement under its path: `sql/tasks/list.sql` is `tasks.list`."""
    rooms: dict[str, SimpleNamespace] = {}
    for statement in read_all(folder):
        room, _, name = statement.name.rpartition(".")
        setattr(rooms.setdefault(room, SimpleNamespace()), name, statement)
    return SimpleNamespace(**rooms)
