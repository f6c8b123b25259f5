"""The workbench on the command line: `python -m service sql TOOL`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

import orjson

from service.core.errors import ServiceError, StartError
from service.core.settings import Settings
from service.db import embedded, migrations, pool, readiness
from service.db.errors import DRIVER_ERRORS, translate
from service.db.headers import HeaderError
from service.db.pool import Connection, Database
from service.dba import catalog, check, explain, plans, scratch_database, top

LEAST_ROWS, KEPT_ROWS, MOST_ROWS = 20_000, 1_000_000, 100_000_000

T = TypeVar("T")


def add(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say what each tool takes."""
    tool = tools.add_parser("check", help="hold every statement against its header and the schema")
    tool.add_argument("--write", action="store_true", help="renew service/queries.pyi")
    tool.set_defaults(run=sql_check)

    tool = tools.add_parser("catalog", help="list the statements: what each takes, gives and touches, and what runs it")
    tool.add_argument("--format", choices=["md", "json"], default="md")
    tool.add_argument("--write", action="store_true", help="renew sql/CATALOG.md")
    tool.set_defaults(run=sql_catalog)

    tool = tools.add_parser("explain", help="show the plan of a statement")
    tool.add_argument("name", metavar="NAME", help="tasks.get; of a list with its sort, quoted: 'tasks.list -title'")
    tool.add_argument("sort", metavar="SORT", nargs="?", default="", help="of a list, where it ascends: title")
    tool.add_argument(
        "--params", metavar="JSON", help="values: an object by name, or an array; without: the generic plan"
    )
    tool.add_argument("--analyze", action="store_true", help="carry it out, in a transaction that is rolled back")
    tool.add_argument("--generic", action="store_true", help="the generic plan, with --params too")
    tool.add_argument("--json", action="store_true", help="the plan as JSON")
    tool.set_defaults(run=sql_explain)

    tool = tools.add_parser(
        "plans", help="hold every plan on many skewed rows, in a scratch database, against its header"
    )
    tool.add_argument(
        "--rows", metavar="N", type=int, default=KEPT_ROWS, help="tasks; tests/plans/ has a million's plans"
    )
    tool.add_argument("--write", action="store_true", help="renew tests/plans/*.txt")
    tool.set_defaults(run=sql_plans)

    tool = tools.add_parser("top", help="show what the statements cost, from pg_stat_statements")
    tool.add_argument("--by", choices=list(top.COLUMNS), default="total")
    tool.add_argument("--limit", metavar="N", type=int, default=20)
    tool.add_argument("--json", action="store_true")
    tool.set_defaults(run=sql_top)


def sql_check(arguments: argparse.Namespace, given: Settings) -> int:
    """Hold every statement against its header and the schema."""

    async def run(connection: Connection) -> list[str]:
        return await check.check(connection, write=arguments.write)

    problems = _on_the_schema(given, run)
    print("\n".join(problems) or "every statement holds", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def sql_catalog(arguments: argparse.Namespace, given: Settings) -> int:
    """List the statements."""
    entries = _on_the_schema(given, catalog.entries)
    text = catalog.markdown(entries)
    if arguments.write:
        catalog.FILE.write_text(text, encoding="utf-8")
    elif arguments.format == "json":
        print(orjson.dumps([entry.described() for entry in entries], option=orjson.OPT_INDENT_2).decode())
    else:
        print(text, end="")
    return 0


def sql_explain(arguments: argparse.Namespace, given: Settings) -> int:
    """Show the plan of a statement."""
    statement, sort = explain.find(f"{arguments.name} {arguments.sort}")
    values = None if arguments.params is None else explain.values_of(statement, arguments.params)
    if arguments.analyze and values is None:
        if statement.header.params:
            raise StartError(f"--analyze takes --params: {explain.wanted(statement)}")
        values = {}

    async def run(connection: Connection) -> Any:
        return await explain.explain(
            connection,
            statement,
            sort,
            values,
            analyze=arguments.analyze,
            generic=arguments.generic,
            form="json" if arguments.json else "text",
        )

    plan = _on_the_schema(given, run)
    if arguments.json:
        print(orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode())
    else:
        path = catalog.shown(statement.path)
        print(f"{statement.name} {sort}".rstrip(), path, statement.header.sentence, "", *plan, sep="\n")
    return 0


def sql_plans(arguments: argparse.Namespace, given: Settings) -> int:
    """Hold every plan against its header, and its shape against the one that is kept."""
    if not LEAST_ROWS <= arguments.rows <= MOST_ROWS:
        raise StartError(f"--rows takes {LEAST_ROWS} to {MOST_ROWS}: PostgreSQL reads what is small as a whole")

    async def run(url: str) -> tuple[list[str], dict[str, str]]:
        async with scratch_database.database(url) as made:
            await scratch_database.fill(made, rows=arguments.rows, said=scratch_database.bar)
            async with scratch_database.connected(made) as connection:
                return await plans.hold(connection, said=lambda name: print(name, file=sys.stderr))

    with embedded.database(given) as url:
        problems, shapes = asyncio.run(run(url))
    if arguments.write or arguments.rows == KEPT_ROWS:
        problems += plans.compare(shapes, write=arguments.write)
    print("\n".join(problems) or "every plan holds", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def sql_top(arguments: argparse.Namespace, given: Settings) -> int:
    """Show what the statements cost."""

    async def run(database: Database) -> list[top.Figures]:
        async with database.connection() as connection:
            return await top.figures(connection)

    figures = top.ordered(with_database(given, run), by=arguments.by)[: max(arguments.limit, 0)]
    if arguments.json:
        print(orjson.dumps([asdict(one) for one in figures], option=orjson.OPT_INDENT_2).decode())
    else:
        print(top.table(figures), end="")
    return 0


def _on_the_schema(given: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do it on the database that the settings name, where its schema is this release's."""

    async def run(database: Database) -> T:
        await readiness.check(database)
        async with database.connection() as connection:
            return await work(connection)

    return with_database(given, run)


def with_database(given: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do it on the database that the settings name."""

    async def run(url: str) -> T:
        try:
            async with pool.connected(url, given) as database:
                return await work(database)
        except HeaderError as error:
            raise StartError(str(error)) from error
        except DRIVER_ERRORS as error:
            told = translate(error)
            raise told if isinstance(told, ServiceError) else StartError(" ".join(str(error).split())) from error

    with embedded.database(given) as url:
        if given.migrates_on_start:
            for name in migrations.migrate(url):
                print(f"applied  {name}", file=sys.stderr)
        return asyncio.run(run(url))
