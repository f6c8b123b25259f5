"""The workbench on the command line: `python -m service sql TOOL`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson

from service.cli import PLANS_ROWS
from service.cli.database import T, with_database
from service.core.errors import StartError
from service.core.settings import Settings
from service.db import embedded, readiness
from service.db.pool import Connection, Database
from service.dba import catalog, check, explain, plans, scratch_database, top

MIN_ROWS, MAX_ROWS = 20_000, 100_000_000


def check_statements(arguments: argparse.Namespace, settings: Settings) -> int:
    """Hold every statement against its header and the schema."""

    async def run(connection: Connection) -> list[str]:
        return await check.check(connection, write=arguments.write)

    problems = _on_the_schema(settings, run)
    print("\n".join(problems) or "every statement holds", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def list_statements(arguments: argparse.Namespace, settings: Settings) -> int:
    """List the statements."""
    entries = _on_the_schema(settings, catalog.entries)
    text = catalog.markdown(entries)
    if arguments.write:
        catalog.FILE.write_text(text, encoding="utf-8")
    elif arguments.format == "json":
        print(orjson.dumps([entry.described() for entry in entries], option=orjson.OPT_INDENT_2).decode())
    else:
        print(text, end="")
    return 0


def explain_statement(arguments: argparse.Namespace, settings: Settings) -> int:
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

    plan = _on_the_schema(settings, run)
    if arguments.json:
        print(orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode())
    else:
        path = catalog.shown(statement.path)
        print(f"{statement.name} {sort}".rstrip(), path, statement.header.sentence, "", *plan, sep="\n")
    return 0


def compare_plans(arguments: argparse.Namespace, settings: Settings) -> int:
    """Hold every plan against its header, and its shape against the one that is kept."""
    if not MIN_ROWS <= arguments.rows <= MAX_ROWS:
        raise StartError(f"--rows takes {MIN_ROWS} to {MAX_ROWS}: PostgreSQL reads what is small as a whole")

    async def run(url: str) -> tuple[list[str], dict[str, str]]:
        async with scratch_database.database(url) as made:
            await scratch_database.fill(made, rows=arguments.rows, said=scratch_database.bar)
            async with scratch_database.connected(made) as connection:
                return await plans.hold(connection, said=lambda name: print(name, file=sys.stderr))

    with embedded.database(settings) as url:
        problems, shapes = asyncio.run(run(url))
    if arguments.write or arguments.rows == PLANS_ROWS:
        problems += plans.compare(shapes, write=arguments.write)
    print("\n".join(problems) or "every plan holds", file=sys.stderr if problems else sys.stdout)
    return 1 if problems else 0


def show_top(arguments: argparse.Namespace, settings: Settings) -> int:
    """Show what the statements cost."""

    async def run(database: Database) -> list[top.Figures]:
        async with database.connection() as connection:
            return await top.figures(connection)

    figures = top.ordered(with_database(settings, run), by=arguments.by)[: max(arguments.limit, 0)]
    if arguments.json:
        print(orjson.dumps([asdict(one) for one in figures], option=orjson.OPT_INDENT_2).decode())
    else:
        print(top.table(figures), end="")
    return 0


def _on_the_schema(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do it on the database that the settings name, where its schema is this release's."""

    async def run(database: Database) -> T:
        await readiness.check(database)
        async with database.connection() as connection:
            return await work(connection)

    return with_database(settings, run)
