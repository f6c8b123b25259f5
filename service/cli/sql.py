"""`python -m service sql TOOL`: the tools for DBAs."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
from tqdm import tqdm

from service.cli import PLANS_ROWS
from service.cli.database import T, with_database
from service.core.errors import StartError
from service.core.settings import Settings
from service.db import embedded, readiness
from service.db.pool import Connection, Database
from service.dba import catalog, check, explain, plans, scratch_database, top

MIN_ROWS, MAX_ROWS = 20_000, 100_000_000
BAR_FORMAT = "seed.sql: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


def check_statements(arguments: argparse.Namespace, settings: Settings) -> int:
    """Compare every statement with its header, the schema and the code, and print the problems."""

    async def run(connection: Connection) -> list[str]:
        return await check.check(connection, write=arguments.write)

    problems = _with_current_schema(settings, run)
    print(
        "\n".join(problems) or "every statement matches its header, the schema and the code",
        file=sys.stderr if problems else sys.stdout,
    )
    return 1 if problems else 0


def list_statements(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the catalogue of statements, or rewrite sql/CATALOG.md."""
    entries = _with_current_schema(settings, catalog.entries)
    text = catalog.markdown(entries)
    if arguments.write:
        catalog.FILE.write_text(text, encoding="utf-8")
    elif arguments.format == "json":
        print(orjson.dumps([entry.as_dict() for entry in entries], option=orjson.OPT_INDENT_2).decode())
    else:
        print(text, end="")
    return 0


def explain_statement(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the plan of a statement."""
    statement, sort = explain.find(f"{arguments.name} {arguments.sort}")
    values = None if arguments.params is None else explain.parse_values(statement, arguments.params)
    if arguments.analyze and values is None:
        if statement.header.params:
            raise StartError(f"--analyze takes --params: {explain.describe_params(statement)}")
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

    plan = _with_current_schema(settings, run)
    if arguments.json:
        print(orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode())
    else:
        path = catalog.relative_path(statement.path)
        print(f"{statement.name} {sort}".rstrip(), path, statement.header.sentence, "", *plan, sep="\n")
    return 0


def compare_plans(arguments: argparse.Namespace, settings: Settings) -> int:
    """Compare every plan with its header and with the kept plan, and print the problems."""
    if not MIN_ROWS <= arguments.rows <= MAX_ROWS:
        raise StartError(f"--rows takes {MIN_ROWS} to {MAX_ROWS}: PostgreSQL ignores the indexes of small tables")

    async def run(url: str) -> tuple[list[str], dict[str, str]]:
        async with scratch_database.database(url) as scratch_url:
            with tqdm(total=1, bar_format=BAR_FORMAT, file=sys.stderr, disable=None, leave=False) as bar:
                await scratch_database.fill(scratch_url, rows=arguments.rows, advance=bar.update)
            async with scratch_database.connected(scratch_url) as connection:
                return await plans.verify(connection, report=lambda name: print(name, file=sys.stderr))

    with embedded.database(settings) as url:
        problems, shapes = asyncio.run(run(url))
    if arguments.write or arguments.rows == PLANS_ROWS:
        problems += plans.compare(shapes, write=arguments.write)
    print("\n".join(problems) or "every plan matches its header", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def show_top(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the statements with the highest costs."""

    async def run(database: Database) -> list[top.StatementCost]:
        async with database.connection() as connection:
            return await top.costs(connection)

    costs = top.ordered(with_database(settings, run), by=arguments.by)[: max(arguments.limit, 0)]
    if arguments.json:
        print(orjson.dumps([asdict(cost) for cost in costs], option=orjson.OPT_INDENT_2).decode())
    else:
        print(top.table(costs), end="")
    return 0


def _with_current_schema(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` on the configured database.

    Raises: UnavailableError if its schema is outdated.
    """

    async def run(database: Database) -> T:
        await readiness.check(database)
        async with database.connection() as connection:
            return await work(connection)

    return with_database(settings, run)
