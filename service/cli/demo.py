"""`python -m service demo`: fill an empty database with the invented year of a small office."""

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

NOT_EMPTY = "there are users or tasks already: demo fills an empty database"
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
    """A task that might have been."""

    user_id: int
    title: str
    description: str | None
    status: str
    city: str | None
    created_at: datetime
    updated_at: datetime


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Fill an empty database, and say how to log in."""
    password = secrets.token_urlsafe(12)

    async def work(database: Database) -> None:
        with tqdm(total=arguments.tasks, unit=" tasks", file=sys.stderr, disable=None, leave=False) as bar:
            await fill(database, tasks=arguments.tasks, password=password, passwords=Passwords(), made=bar.update)

    with_database(settings, work)
    print(f"{arguments.tasks} tasks made, of {len(USERS)} users: {', '.join(USERS)}")
    print(f"They and the administrator {ADMINISTRATOR} log in with the password {password}")
    return 0


async def fill(
    database: Database, *, tasks: int, password: str, passwords: Passwords, made: Callable[[int], object]
) -> None:
    """Make ADMINISTRATOR, USERS, all with that password, and their tasks, or nothing at all.

    `made` hears how many tasks each batch has made. StartError where the database is not empty.
    """
    hashed = await passwords.hash(password, payer=None)
    async with database.transaction() as db:
        if not await q.demo.is_empty(db):
            raise StartError(NOT_EMPTY)
        try:
            await q.accounts.create(db, username=ADMINISTRATOR, password_hash=hashed, role="admin")
        except ConflictError:  # another demo was sooner
            raise StartError(NOT_EMPTY) from None
        users = [await q.accounts.create(db, username=name, password_hash=hashed, role="user") for name in USERS]
        invented = sorted(_invented([user["id"] for user in users], tasks), key=lambda task: task.created_at)
        for start in range(0, tasks, BATCH):
            made(await q.demo.create_tasks(db, **_columns(invented[start : start + BATCH])))


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


def _invented(user_ids: list[int], tasks: int) -> Iterator[Task]:
    """Invent the same tasks each time, but for when: most belong to few, old ones are done as a rule."""
    chance = random.Random(1)  # noqa: S311 - nothing here is secret
    now = datetime.now(UTC)
    for _ in range(tasks):
        age = timedelta(days=DAYS) * chance.random()
        needs = timedelta(days=chance.expovariate(1 / DAYS_TO_DONE))
        status = "done" if needs < age else chance.choice(("todo", "todo", "in_progress"))
        verb, thing, when = chance.choice(VERBS), chance.choice(THINGS), chance.choice(WHENS)
        yield Task(
            user_id=user_ids[math.floor(len(user_ids) * chance.random() ** 2)],
            title=f"{verb} {thing}",
            description=f"{verb} {thing} {when}." if chance.random() < 0.7 else None,
            status=status,
            city=chance.choice(CITIES),
            created_at=now - age,
            updated_at=now - age + min(needs, age) * (status != "todo"),
        )
