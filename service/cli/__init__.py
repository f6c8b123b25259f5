"""The command line: `python -m service COMMAND`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module

from loguru import logger

from service.core import settings
from service.core.errors import ServiceError
from service.db.headers import HeaderError

MAX_DEMO_TASKS = 100_000
PLANS_ROWS = 1_000_000  # of which `sql/plans/` keeps the plans
TOP_COLUMNS = ("total", "mean", "calls", "rows")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 failure (one line says why), 2 wrong usage.

    If nobody reads its output any more, as in `| head`, the command ends silently, as if by SIGPIPE.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # they are flushed once more at the end
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _run(arguments: list[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    logger.remove()  # loguru's own, which shows what variables hold; a command prints its result, `serve` sets up a log
    # Imported only now: the routes alone take 0.7 s, which no command but `serve` and `openapi` needs.
    module, _, function = parsed.run.partition(".")
    try:
        return int(getattr(import_module(f"service.cli.{module}"), function)(parsed, settings.load()))
    except (ServiceError, HeaderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m service", description="The task manager's service and its tools.")
    parser.set_defaults(run="serve.run")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    command = commands.add_parser("serve", help="run the service (also without a command)")
    command.set_defaults(run="serve.run")

    command = commands.add_parser("migrate", help="bring the schema to this release's")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--to", metavar="MIGRATION", help="stop after this migration")
    which.add_argument("--rollback", metavar="N", type=_count, help="roll back the last N")
    which.add_argument("--status", action="store_true", help="only print where the schema stands")
    command.set_defaults(run="migrate.run")

    command = commands.add_parser("create-admin", help="create an administrator")
    command.add_argument("username", metavar="USERNAME")
    command.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    command.set_defaults(run="create_admin.run")

    command = commands.add_parser("demo", help="fill an empty database with users and tasks")
    command.add_argument("--tasks", metavar="N", type=_demo_tasks, default=5000, help="how many tasks; 5000 by default")
    command.set_defaults(run="demo.run")

    command = commands.add_parser("sql", help="the DBA's tools")
    _add_sql(command.add_subparsers(title="tools", metavar="TOOL", required=True))

    command = commands.add_parser("openapi", help="print the OpenAPI document")
    command.set_defaults(run="openapi.run")
    return parser


def _add_sql(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tool = tools.add_parser("check", help="compare every statement with its header and the schema")
    tool.add_argument("--write", action="store_true", help="renew service/db/queries.pyi")
    tool.set_defaults(run="sql.check_statements")

    tool = tools.add_parser("catalog", help="list the statements: parameters, columns, tables, and what runs each")
    tool.add_argument("--format", choices=["md", "json"], default="md")
    tool.add_argument("--write", action="store_true", help="renew sql/CATALOG.md")
    tool.set_defaults(run="sql.list_statements")

    tool = tools.add_parser("explain", help="show the plan of a statement")
    tool.add_argument("name", metavar="NAME", help="tasks.get; of a list with its sort, quoted: 'tasks.list -title'")
    tool.add_argument("sort", metavar="SORT", nargs="?", default="", help="of an ascending list: title")
    tool.add_argument(
        "--params", metavar="JSON", help="values: an object by name, or an array; without: the generic plan"
    )
    tool.add_argument("--analyze", action="store_true", help="run it, in a transaction that is rolled back")
    tool.add_argument("--generic", action="store_true", help="the generic plan, with --params too")
    tool.add_argument("--json", action="store_true", help="the plan as JSON")
    tool.set_defaults(run="sql.explain_statement")

    tool = tools.add_parser(
        "plans", help="compare every plan on many skewed rows with its header, in a scratch database"
    )
    tool.add_argument("--rows", metavar="N", type=int, default=PLANS_ROWS, help="tasks; 1000000 by default")
    tool.add_argument("--write", action="store_true", help="renew sql/plans/*.txt")
    tool.set_defaults(run="sql.compare_plans")

    tool = tools.add_parser("top", help="show what the statements cost, from pg_stat_statements")
    tool.add_argument("--by", choices=TOP_COLUMNS, default="total")
    tool.add_argument("--limit", metavar="N", type=int, default=20)
    tool.add_argument("--json", action="store_true")
    tool.set_defaults(run="sql.show_top")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a number from 1 up and got {text[:20]!r}")
    return number


def _demo_tasks(text: str) -> int:
    if (number := _count(text)) > MAX_DEMO_TASKS:
        raise argparse.ArgumentTypeError(f"takes at most {MAX_DEMO_TASKS} and got {number}")
    return number
