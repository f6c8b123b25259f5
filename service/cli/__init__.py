"""The command line: `python -m service COMMAND`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module

from service.core.errors import ServiceError
from service.db.headers import HeaderError

MAX_DEMO_TASKS = 100_000
PLANS_ROWS = 1_000_000  # tasks of the kept plans in sql/plans/
STDOUT, STDERR = 1, 2
TOP_COLUMNS = ("total", "mean", "calls", "rows")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 failure (one line says why), 2 wrong usage.

    If the reader of its output goes, as in `| head`, the command ends silently, as if by SIGPIPE.
    """
    _open_standard_streams()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # Python flushes both again at exit
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _open_standard_streams() -> None:
    """Open those that were closed before the start, so that neither a socket nor a file gets their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115


def _run(arguments: list[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    # Imported late: the settings take 0.3 s, which help does not need, and the routes 0.7 s, which only `serve` and
    # `openapi` need.
    settings = import_module("service.core.settings")
    import_module("loguru").logger.remove()  # its default prints the values of variables; `serve` sets up its own log
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

    command = commands.add_parser("serve", help="run the service (the default)")
    command.set_defaults(run="serve.run")

    command = commands.add_parser("migrate", help="apply the migrations of this release")
    mode = command.add_mutually_exclusive_group()
    mode.add_argument("--to", metavar="MIGRATION", help="stop after this migration")
    mode.add_argument("--rollback", metavar="N", type=_count, help="roll back the last N")
    mode.add_argument("--status", action="store_true", help="list the migrations, applied and pending")
    command.set_defaults(run="migrate.run")

    command = commands.add_parser("create-admin", help="create an administrator")
    command.add_argument("username", metavar="USERNAME")
    command.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    command.set_defaults(run="create_admin.run")

    command = commands.add_parser("demo", help="fill an empty database with users and tasks")
    command.add_argument(
        "--tasks", metavar="N", type=_demo_tasks, default=5000, help="number of tasks; 5000 by default"
    )
    command.set_defaults(run="demo.run")

    command = commands.add_parser("sql", help="the DBA's tools")
    _add_sql(command.add_subparsers(title="tools", metavar="TOOL", required=True))

    command = commands.add_parser("openapi", help="print the OpenAPI document")
    command.set_defaults(run="openapi.run")

    command = commands.add_parser("settings", help="print all settings with their values and defaults")
    command.add_argument("--write", action="store_true", help="rewrite docs/configuration.md and .env.example")
    command.set_defaults(run="settings.run")
    return parser


def _add_sql(tools: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tool = tools.add_parser("check", help="compare every statement with its header, the schema and the code")
    tool.add_argument("--write", action="store_true", help="rewrite service/db/queries.pyi")
    tool.set_defaults(run="sql.check_statements")

    tool = tools.add_parser(
        "catalog", help="list every statement: parameters, columns, tables, and the routes that run it"
    )
    tool.add_argument("--format", choices=["md", "json"], default="md")
    tool.add_argument("--write", action="store_true", help="rewrite sql/CATALOG.md")
    tool.set_defaults(run="sql.list_statements")

    tool = tools.add_parser("explain", help="show the plan of a statement")
    tool.add_argument("name", metavar="NAME", help="tasks.get; for a list with its sort, quoted: 'tasks.list -title'")
    tool.add_argument("sort", metavar="SORT", nargs="?", default="", help="an ascending sort of a list: title")
    tool.add_argument(
        "--params", metavar="JSON", help="values, as an object by name or an array; the default is the generic plan"
    )
    tool.add_argument("--analyze", action="store_true", help="run the statement in a transaction that is rolled back")
    tool.add_argument("--generic", action="store_true", help="show the generic plan despite --params")
    tool.add_argument("--json", action="store_true", help="print the plan as JSON")
    tool.set_defaults(run="sql.explain_statement")

    tool = tools.add_parser(
        "plans", help="compare every plan with its header, on many skewed rows in a scratch database"
    )
    tool.add_argument("--rows", metavar="N", type=int, default=PLANS_ROWS, help="number of tasks; 1000000 by default")
    tool.add_argument("--write", action="store_true", help="rewrite sql/plans/*.txt")
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
