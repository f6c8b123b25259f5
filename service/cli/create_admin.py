"""`python -m service create-admin`: create an administrator."""

from __future__ import annotations

import argparse
import getpass
import sys

from service.accounts.passwords import Passwords
from service.accounts.users import Users, check_admin_credentials
from service.cli.database import with_database
from service.core.errors import StartError
from service.core.settings import Settings
from service.db.pool import Database


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Create an administrator and print its id."""
    password = sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else _ask_password()
    check_admin_credentials(arguments.username, password)

    async def create(database: Database) -> int:
        return await Users(passwords=Passwords()).create_admin(database, username=arguments.username, password=password)

    print(f"administrator {arguments.username} created, id {with_database(settings, create)}")
    return 0


def _ask_password() -> str:
    try:
        password = getpass.getpass()
        if getpass.getpass("Again: ") != password:
            raise StartError("the two passwords differ")
    except EOFError:
        raise StartError("no password was entered") from None
    return password
