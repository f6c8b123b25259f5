"""Finds the statements under `sql/` and runs them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from service.core import metrics
from service.core.server_timing import Stopwatch, measured
from service.db.errors import DRIVER_ERRORS, ROLLED_BACK, translate
from service.db.headers import Header, HeaderError, expand, split
from service.db.pool import UNHURRIED, Connection, Database, Executor, Transaction

if TYPE_CHECKING:
    from prometheus_client import Histogram  # which service.metrics imports first, for all

Fetch: TypeAlias = Callable[[Connection], Awaitable[Any]]

FOLDER = Path(__file__).parents[2] / "sql"
PLANS = "plans"  # the folder in it that holds no statements
STREAMED_ROWS = 200
FIRST_WORD = re.compile(r"\w+")
# What a read-only transaction refuses; sqlfluff holds each clause to a line of its own.
WRITES = re.compile(r"^\s*(insert|update|delete|for (no key )?update|for (key )?share)\b", re.MULTILINE)


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
                await connection.execute(db.settings + UNHURRIED)
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
                        result = await self._again_if_rolled_back(db, connection, fetch)
                    if self.header.notifies:
                        db.on_commit()
                    return result
                if isinstance(db, Transaction):
                    result = await fetch(await db.connection())
                    db.notifies |= bool(self.header.notifies)
                    return result
                return await fetch(db)
        except DRIVER_ERRORS as error:
            raise self._translated(error) from error

    async def _again_if_rolled_back(self, db: Database, connection: Connection, fetch: Fetch) -> Any:
        try:
            return await self._alone(db, connection, fetch)
        except ROLLED_BACK:  # nothing is left of it, and whoever stood in its way goes on
            metrics.STATEMENT_ERRORS.labels(self.name, "rolled_back").inc()
            return await self._alone(db, connection, fetch)

    async def _alone(self, db: Database, connection: Connection, fetch: Fetch) -> Any:
        if not db.settings:
            return await fetch(connection)
        async with db.begun(connection, writes=self.writes):
            return await fetch(connection)

    @cached_property
    def writes(self) -> bool:
        """Whether it changes or locks rows."""
        return any(WRITES.search(text) for text in self.texts.values())

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
        header, body, line = split(path.read_text(encoding="utf-8"))
        texts = dict(expand(header, body, line)) if header.sorts else {"": body}
    except UnicodeDecodeError as error:
        raise HeaderError(f"{path}:{error.object.count(10, 0, error.start) + 1}: {error}") from None
    except ValueError as error:
        raise HeaderError(f"{path}:{error}") from None
    return Statement(name, path, header, line, {sort: _tagged(text, name, sort) for sort, text in texts.items()})


def _tagged(text: str, name: str, sort: str) -> str:
    """Put the tag behind the first word: pg_stat_statements cuts off what stands before it."""
    return FIRST_WORD.sub(rf"\g<0> /* {f'{name} {sort}'.rstrip()} */", text, count=1)


def statement_files(folder: Path = FOLDER) -> list[Path]:
    """Return the files that hold a statement each, sorted."""
    return sorted(path for path in folder.rglob("*.sql") if path.parent.name != PLANS)


def read_all(folder: Path = FOLDER) -> list[Statement]:
    """Read every file, in the order of their names."""
    return [read(path, folder=folder) for path in statement_files(folder)]


def load(folder: Path = FOLDER) -> SimpleNamespace:
    """Give every statement under its path: `sql/tasks/list.sql` is `tasks.list`."""
    state: dict[str, SimpleNamespace] = {}
    for statement in read_all(folder):
        room, _, name = statement.name.rpartition(".")
        setattr(state.setdefault(room, SimpleNamespace()), name, statement)
    return SimpleNamespace(**state)
