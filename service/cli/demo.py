"""`python -m service demo`: fill an empty database with a year of invented tasks of a small office."""

from __future__ import annotations

import argparse
import math
import random
import secrets
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tqdm import tqdm

from service.accounts.passwords import Passwords
from service.cli.database import with_database
from service.core.errors import ConflictError, StartError
from service.core.settings import Settings
from service.db.pool import Database
from service.db.queries import q

NOT_EMPTY = "there are users or tasks already: demo takes an empty database"
ADMINISTRATOR = "demo"
USERS = ("alan", "barbara", "dennis", "donald", "edsger", "frances", "ken", "margaret", "niklaus", "radia", "sophie")
BATCH = 500
DAYS, DAYS_TO_DONE = 365, 4
VERBS = ("Book", "Call", "Check", "File", "Fix", "Order", "Plan", "Prepare", "Print", "Review", "Send", "Translate")
THINGS = (
    *("the annual report", "a meeting room", "the invoices", "the office plants", "the price list", "the contract"),
    *("the travel costs", "the newsletter", "a data backup", "the coffee machine", "the fire drill", "the minutes"),
)
WHENS = ("before noon", "for the board", "with the new intern", "for Friday", "in both languages", "as agreed by phone")
CITIES = ("Berlin", "Lagos", "Lima", "London", "Mumbai", "Oslo", "Paris", "São Paulo", "Sydney", "Tokyo", None, None)


class Task(NamedTuple):
    """An invented task."""

    user_id: int
    title: str
    description: str | None
    status: str
    city: str | None
    created_at: datetime
    updated_at: datetime


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Fill an empty database, and print the names and the password of its users."""
    password = secrets.token_urlsafe(12)

    async def work(database: Database) -> None:
        with tqdm(total=arguments.tasks, unit=" tasks", file=sys.stderr, disable=None, leave=False) as bar:
            await fill(database, tasks=arguments.tasks, password=password, passwords=Passwords(), advance=bar.update)

    with_database(settings, work)
    print(f"{arguments.tasks} tasks created for {len(USERS)} users: {', '.join(USERS)}")
    print(f"They and the administrator {ADMINISTRATOR} log in with the password {password}")
    return 0


async def fill(
    database: Database, *, tasks: int, password: str, passwords: Passwords, advance: Callable[[int], object]
) -> None:
    """Create ADMINISTRATOR and USERS, all with this password, and their tasks, in one transaction.

    advance: called with the number of tasks in each batch.
    Raises: StartError if the database is not empty.
    """
    hashed = await passwords.hash(password, payer=None)
    async with database.transaction() as db:
        if not await q.demo.is_empty(db):
            raise StartError(NOT_EMPTY)
        try:
            await q.accounts.create(db, username=ADMINISTRATOR, password_hash=hashed, role="admin")
        except ConflictError:  # another demo came first
            raise StartError(NOT_EMPTY) from None
        users = [await q.accounts.create(db, username=name, password_hash=hashed, role="user") for name in USERS]
        invented = sorted(_invent_tasks([user["id"] for user in users], tasks), key=lambda task: task.created_at)
        for start in range(0, tasks, BATCH):
            advance(await q.demo.create_tasks(db, **_columns(invented[start : start + BATCH])))


def _columns(tasks: list[Task]) -> dict[str, Any]:
    user_ids, titles, descriptions, statuses, cities, created_at, updated_at = map(list, zip(*tasks, strict=True))
    return {
        "user_ids": user_ids,
        "titles": titles,
        "descriptions": descriptions,
        "statuses": statuses,
        "cities": cities,
        "created_at": created_at,
        "updated_at": updated_at,
    }


def _invent_tasks(user_ids: list[int], tasks: int) -> Iterator[Task]:
    """Return the same invented tasks each time, with times before now.

    Few users own most of them, and most old ones are done.
    """
    generator = random.Random(1)  # noqa: S311 - the tasks are not secret
    now = datetime.now(UTC)
    for _ in range(tasks):
        age = timedelta(days=DAYS) * generator.random()
        duration = timedelta(days=generator.expovariate(1 / DAYS_TO_DONE))
        status = "done" if duration < age else generator.choice(("todo", "todo", "in_progress"))
        verb, thing, when = generator.choice(VERBS), generator.choice(THINGS), generator.choice(WHENS)
        yield Task(
            user_id=user_ids[math.floor(len(user_ids) * generator.random() ** 2)],
            title=f"{verb} {thing}",
            description=f"{verb} {thing} {when}." if generator.random() < 0.7 else None,
            status=status,
            city=generator.choice(CITIES),
            created_at=now - age,
            updated_at=now - age + min(duration, age) * (status != "todo"),
        )
