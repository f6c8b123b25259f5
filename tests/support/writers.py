"""Writers over the API and in SQL, with short, long, rolled back and deadlocked transactions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg
import httpx

from service.db.errors import DRIVER_ERRORS
from tests.support.listeners import HTTP, authorization

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
STATUSES = ("todo", "in_progress", "done")
BULK = 1200
WAIT_SECONDS = 60


@dataclass
class Writers:
    """Concurrent writers of shared and own tasks until `over` is set; `rounds` counts the rounds of each."""

    url: str
    replicas: list[str]
    users: list[int]
    dice: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)
    rounds: dict[str, int] = field(default_factory=dict)
    shared: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run all writers; at the end wait until each has finished."""
        async with session(self.url) as sql:
            insert = "insert into tasks (user_id, title) select $1, 'shared' from generate_series(1, 6) returning id"
            self.shared = [row["id"] for row in await sql.fetch(insert, self.users[0])]
        kinds = (
            self.api,
            self.again,
            self.short,
            self.long,
            self.nested,
            self.rolled_back,
            self.deadlocked,
            self.bulk,
        )
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                self.rounds[kind.__name__] = 0
                group.create_task(self._work(kind))
            try:
                yield
            finally:
                self.over.set()

    async def _work(self, kind: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set() and (kind != self.bulk or not self.rounds["bulk"]):
            with suppress(*DRIVER_ERRORS, httpx.TransportError):
                await kind()
                self.rounds[kind.__name__] += 1
            await asyncio.sleep(0.01)

    async def done(self, rounds: int) -> None:
        """Wait until each writer has done this number of further rounds, at most 60 seconds."""
        wanted = {name: count + rounds for name, count in self.rounds.items() if name != "bulk"}
        deadline = time.monotonic() + WAIT_SECONDS
        while any(self.rounds[name] < count for name, count in wanted.items()):
            assert time.monotonic() < deadline, (self.rounds, wanted)
            await asyncio.sleep(0.01)

    async def api(self) -> None:
        """Create a task, change it three times, and delete it in half of the rounds."""
        user = self.dice.choice(self.users)
        url, headers = self.dice.choice(self.replicas), authorization(user, "user")
        new = {"title": "Over the API", "description": "é\u2028" * 20}
        answer = await HTTP.post(f"{url}/tasks", json=new, headers=headers)
        path = url + answer.headers.get("Location", "/tasks/1")
        answers = [answer, *[await HTTP.patch(path, json={"status": one}, headers=headers) for one in STATUSES]]
        if self.dice.random() < 0.5:
            answers.append(await HTTP.delete(path, headers=headers))
        for one in answers:
            assert one.status_code in {200, 201, 204, 403, 404, 503}, one.text

    async def again(self) -> None:
        """Run a second `api` writer."""
        await self.api()

    async def short(self) -> None:
        """Commit single statements, which change titles and owners."""
        async with session(self.url) as sql:
            for _ in range(10):
                task, user = self.dice.choice(self.shared), self.dice.choice(self.users)
                await sql.execute("update tasks set title = title || '.' where id = $1 and length(title) < 99", task)
                await sql.execute("update tasks set user_id = $2, title = 'moved' where id = $1", task, user)

    async def long(self) -> None:
        """Write, keep the transaction open while others commit, write again, commit."""
        async with session(self.url) as sql, sql.transaction():
            await self._insert(sql)
            seen = self.rounds["short"]
            while self.rounds["short"] < seen + 3 and not self.over.is_set() and not sql.is_closed():
                await asyncio.sleep(0.01)
                await self._insert(sql)

    async def nested(self) -> None:
        """Roll back a part of a transaction."""
        async with session(self.url) as sql, sql.transaction():
            await self._insert(sql)
            with suppress(ZeroDivisionError):
                async with sql.transaction():
                    await self._insert(sql)
                    raise ZeroDivisionError
            async with sql.transaction():
                await self._insert(sql)

    async def rolled_back(self) -> None:
        """Roll back a whole transaction."""
        async with session(self.url) as sql:
            with suppress(ZeroDivisionError):
                async with sql.transaction():
                    await self._insert(sql)
                    raise ZeroDivisionError

    async def deadlocked(self) -> None:
        """Lock the same tasks in opposite orders in two transactions; PostgreSQL aborts one."""
        first, second = self.dice.sample(self.shared, 2)
        met = asyncio.Barrier(2)

        async def touch(*tasks: int) -> None:
            async with session(self.url) as sql, sql.transaction():
                await self._insert(sql)
                for number, task in enumerate(tasks):
                    await sql.execute("update tasks set description = random()::text where id = $1", task)
                    if number == 0:
                        async with asyncio.timeout(1):
                            await met.wait()

        await asyncio.gather(touch(first, second), touch(second, first), return_exceptions=True)

    async def bulk(self) -> None:
        """Create 1200 tasks in one statement, once."""
        async with session(self.url) as sql:
            insert = "insert into tasks (user_id, title) select $1, 'bulk ' || n from generate_series(1, $2) as n"
            await sql.execute(insert, self.users[0], BULK)

    async def _insert(self, sql: Sql) -> None:
        user = self.dice.choice(self.users)
        await sql.execute("insert into tasks (user_id, title) values ($1, 'By hand')", user)


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Sql]:
    """Open a session like that of psql, with timeouts of 5 seconds."""
    settings = {"deadlock_timeout": "50ms", "lock_timeout": "1s"}
    connection = await asyncpg.connect(url, timeout=5, command_timeout=5, server_settings=settings)
    try:
        yield connection
    finally:
        connection.terminate()


async def log_in(sql: Sql, user_id: int) -> int:
    """Open a session of an account whose id is the account's id; return that id."""
    await sql.execute(
        "insert into sessions (id, user_id, expires_at, secret, refresh_hash) overriding system value"
        " values ($1, $1, now() + interval '1 day', '', int8send($1)) on conflict do nothing",
        user_id,
    )
    return user_id
