"""The command line: `python -m service COMMAND`."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import signal
import sys
from contextlib import suppress

import orjson
import uvicorn
from loguru import logger
from tqdm import tqdm
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service.core.errors import ServiceError, StartError
from service.db.headers import HeaderError

try:
    from service import app, demo
    from service.api import connection_limits
    from service.attachments import operations
    from service.core import descriptors, logs, metrics, settings, signing_keys
    from service.db import embedded, migrations
    from service.workbench import commands as workbench
except HeaderError as error:  # the statements are read when their room is opened
    sys.exit(f"error: {error}")

from service.accounts.passwords import Passwords
from service.accounts.users import Accounts, check_admin
from service.api.connection import bound
from service.api.connection_limits import ConnectionLimits
from service.api.protocols import LARGEST_MESSAGE, protocols
from service.core.settings import Settings
from service.db.pool import Database

GRACE_SECONDS = 10


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 it worked, 1 it failed and one line says why, 2 it was called wrongly.

    Where nobody reads on, as behind `| head`, it ends without a word, as if by SIGPIPE.
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
    logger.remove()  # loguru's own, which shows what variables hold; a command says what it did, `serve` sets up a log
    try:
        return int(parsed.run(parsed, settings.load()))
    except ServiceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m service", description="The task manager's service and its tools.")
    parser.set_defaults(run=serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    command = commands.add_parser("serve", help="run the service (also without a command)")
    command.set_defaults(run=serve)

    command = commands.add_parser("migrate", help="bring the schema to this release's")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--to", metavar="MIGRATION", help="go no further than this one")
    which.add_argument("--rollback", metavar="N", type=_count, help="take the last N back")
    which.add_argument("--status", action="store_true", help="only say where the schema stands")
    command.set_defaults(run=migrate)

    command = commands.add_parser("create-admin", help="make an administrator")
    command.add_argument("username", metavar="USERNAME")
    command.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    command.set_defaults(run=create_admin)

    command = commands.add_parser("demo", help="fill an empty database with users and tasks")
    command.add_argument("--tasks", metavar="N", type=_tasks, default=5000, help="how many tasks; 5000 without")
    command.set_defaults(run=fill_demo)

    command = commands.add_parser("sql", help="the DBA's workbench")
    tools = command.add_subparsers(title="tools", metavar="TOOL", required=True)
    workbench.add(tools)

    command = commands.add_parser("openapi", help="print the OpenAPI document")
    command.set_defaults(run=openapi)
    return parser


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes a number from 1 up and got {text[:20]!r}")
    return number


def _tasks(text: str) -> int:
    if (number := _count(text)) > demo.MOST_TASKS:
        raise argparse.ArgumentTypeError(f"takes at most {demo.MOST_TASKS} and got {number}")
    return number


def serve(_arguments: argparse.Namespace, given: Settings) -> int:
    """Run the service until it is told to stop."""
    logs.setup(given)
    descriptors.raise_limit()
    connection_limits.budget(given)
    signing_keys.signing_keys(given)
    operations.check(given)
    _check_admin(given)
    # uvicorn hands the signal that stopped it on; the embedded database is still to be stopped then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for hung_up in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(hung_up, lambda *_: signal.raise_signal(signal.SIGTERM))
    with embedded.database(given) as url:
        if given.embedded:
            logger.warning("DATABASE_URL is empty: an embedded PostgreSQL serves, for development only: {}", url)
        if given.migrates_on_start and (applied := migrations.migrate(url)):
            logger.bind(first=applied[0], last=applied[-1]).info("{} migrations applied", len(applied))
        try:
            _serve(given)
        except SystemExit as stopped:
            if stopped.code:  # uvicorn's own, for an address in use and the like
                raise StartError(f"cannot serve on HOST={given.host!r} PORT={given.port}: the log says why") from None
            raise
    return 0


def _check_admin(given: Settings) -> None:
    if not given.admin_username:
        return
    try:
        check_admin(given.admin_username, given.admin_password.get_secret_value())
    except StartError as error:
        raise StartError(f"ADMIN_USERNAME={given.admin_username!r} ADMIN_PASSWORD='***': {error.detail}") from None


def _serve(given: Settings) -> None:
    http, ws = protocols(ConnectionLimits(connection_limits.budget(given).connections, trusted=given.trusted_proxies))
    config = uvicorn.Config(
        "service.app:from_environment",
        factory=True,
        http=http,
        ws=ws,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        host=given.host,
        port=given.port,
        workers=given.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    listening = config.bind_socket()
    bound(listening)
    server = uvicorn.Server(config)
    if given.workers > 1:
        with suppress(KeyboardInterrupt), metrics.shared():
            Multiprocess(config, sockets=[listening]).run()
    else:
        config.load_app()
        with suppress(KeyboardInterrupt):  # uvicorn has stopped for it, and hands it on
            server.run(sockets=[listening])
        if not server.started:
            sys.exit(STARTUP_FAILURE)


def migrate(arguments: argparse.Namespace, given: Settings) -> int:
    """Move the schema, or say where it stands."""
    with embedded.database(given) as url:
        if arguments.status:
            for one in migrations.status(url):
                print(f"{'applied' if one.applied else 'pending'}  {one.id}")
        elif arguments.rollback:
            for name in migrations.rollback(url, count=arguments.rollback):
                print(f"rolled back  {name}")
        else:
            done = migrations.migrate(url, to=arguments.to)
            print("\n".join(f"applied  {name}" for name in done) or "nothing to apply")
    return 0


def create_admin(arguments: argparse.Namespace, given: Settings) -> int:
    """Make an administrator."""
    password = sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else _asked_password()
    check_admin(arguments.username, password)

    async def create(database: Database) -> int:
        return await Accounts(passwords=Passwords()).create_admin(
            database, username=arguments.username, password=password
        )

    print(f"administrator {arguments.username} made, id {workbench.with_database(given, create)}")
    return 0


def fill_demo(arguments: argparse.Namespace, given: Settings) -> int:
    """Fill an empty database, and say how to log in."""
    password = secrets.token_urlsafe(12)

    async def fill(database: Database) -> None:
        with tqdm(total=arguments.tasks, unit=" tasks", file=sys.stderr, disable=None, leave=False) as bar:
            await demo.fill(database, tasks=arguments.tasks, password=password, passwords=Passwords(), made=bar.update)

    workbench.with_database(given, fill)
    print(f"{arguments.tasks} tasks made, of {len(demo.USERS)} users: {', '.join(demo.USERS)}")
    print(f"They and the administrator {demo.ADMINISTRATOR} log in with the password {password}")
    return 0


def _asked_password() -> str:
    try:
        password = getpass.getpass()
        if getpass.getpass("Again: ") != password:
            raise StartError("the two passwords differ")
    except EOFError:
        raise StartError("no password was given") from None
    return password


def openapi(_arguments: argparse.Namespace, given: Settings) -> int:
    """Print the OpenAPI document."""
    document = app.create_app(given).openapi()
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
