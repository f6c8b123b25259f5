"""Every committed change reaches every listener, once, in each task's order: whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from tests.support.clusters import Cluster
from tests.support.listeners import LOST, Listener
from tests.support.servers import Server, serving
from tests.support.writers import BULK, Writers, log_in, session

WAIT_SECONDS = 60
KINDS = ("websocket", "stream", "poll")


class Scene:
    """Two processes on one database, an administrator and two owners who listen in every way."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.dice = random.Random(4)
        self.replicas: list[str] = []
        self.servers: list[Server] = []
        self.listeners: list[Listener] = []
        self._folder = folder
        self._stack = ExitStack()
        self._count = 0

    @asynccontextmanager
    async def played(self) -> AsyncIterator[Writers]:
        """Start the subscribers; at the end compare what they received with what was written."""
        with self._stack:
            await asyncio.gather(self.start(), self.start())
            users = await self._users()
            for kind in KINDS:
                for user_id, role in users.items():
                    listener = Listener(kind, user_id, role, self.replicas, random.Random(self.dice.random()))
                    await listener.begin()
                    self.listeners.append(listener)
            writers = Writers(self.url, self.replicas, list(users)[1:], self.dice)
            async with AsyncExitStack() as stack:
                work = [asyncio.create_task(one.listen()) for one in self.listeners]
                stack.push_async_callback(ended, work)
                async with writers.working():
                    yield writers
                await self._all_heard(work)
            await self._compare()
        assert all(writers.rounds.values()), writers.rounds

    async def start(self) -> None:
        """Start a process."""
        self._count += 1
        folder = self._folder / f"process{self._count}"
        folder.mkdir()
        values = {"DATABASE_URL": self.url, "RATE_LIMIT_PER_MINUTE": "0", "MAX_SUBSCRIPTIONS_PER_USER": "10000"}
        server = await asyncio.to_thread(self._stack.enter_context, serving(folder, **values))
        self.servers.append(server)
        self.replicas.append(server.url)

    async def _users(self) -> dict[int, str]:
        roles = ["admin", "user", "user"]
        insert = "insert into users (username, password_hash, role) values ($1, '', $2) returning id"
        async with session(self.url) as sql:
            return {
                await log_in(sql, await sql.fetchval(insert, f"user-{number}", role)): role
                for number, role in enumerate(roles)
            }

    async def written(self, listener: Listener) -> list[dict[str, Any]]:
        """What the table says that one should have heard."""
        query = (
            "select id, type, task_id, user_id, actor_id, changes, task from task_events "
            "where $2 or user_id = $1 or previous_user_id = $1 order by id"
        )
        async with session(self.url) as sql:
            return [dict(row) for row in await sql.fetch(query, listener.user_id, listener.role == "admin")]

    async def _all_heard(self, work: list[asyncio.Task[None]]) -> None:
        expected = [len(await self.written(listener)) for listener in self.listeners]
        deadline = time.monotonic() + WAIT_SECONDS
        while any(len(one.heard) < number for one, number in zip(self.listeners, expected, strict=True)):
            if time.monotonic() > deadline or any(one.done() for one in work):
                return  # the comparison says what is missing
            await asyncio.sleep(0.01)

    async def _compare(self) -> None:
        for listener in self.listeners:
            written, heard = await self.written(listener), listener.heard
            ids = [event["id"] for event in heard]
            told = f"{listener.kind} of {listener.role}, {listener.connections} connections"
            assert {event["id"] for event in written} - set(ids) == set(), f"{told}: missing"
            assert len(ids) == len(set(ids)), f"{told}: heard twice: {[one for one in ids if ids.count(one) > 1][:9]}"
            assert [_content(event) for event in sorted(heard, key=lambda event: event["id"])] == [
                _content(event) for event in written
            ], told
            last: dict[int, int] = {}
            for event in heard:
                assert last.get(event["task_id"], 0) < event["id"], f"{told}: out of order"
                last[event["task_id"]] = event["id"]
            while True:  # a page's rest may be nothing
                with suppress(*LOST):
                    assert (await listener.page())[0] == [], f"{told}: heard again"
                    break


def _content(event: dict[str, Any]) -> tuple[Any, ...]:
    changes, task = event.get("changes"), event["task"]
    return (
        *(event[name] for name in ("id", "type", "task_id", "user_id", "actor_id")),
        orjson.loads(changes) if isinstance(changes, str) else changes,
        orjson.loads(task) if isinstance(task, str) else task,
    )


async def ended(work: list[asyncio.Task[None]]) -> None:
    """End tasks, and raise what one of them raised."""
    for one in work:
        one.cancel()
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def test_every_subscriber_gets_every_change_exactly_once(own_database_url: str, tmp_path: Path) -> None:
    scene = Scene(own_database_url, tmp_path)
    async with scene.played() as writers:
        await writers.done(4)
        async with asyncio.timeout(WAIT_SECONDS):
            while any(listener.connections <= 3 for listener in scene.listeners):  # each stays as long as chance has it
                await writers.done(1)
    assert len(scene.listeners[0].heard) > BULK


async def test_every_subscriber_gets_every_change_exactly_once_during_kills(cluster: Cluster, tmp_path: Path) -> None:
    scene = Scene(cluster.url, tmp_path)

    async def end_connections() -> None:
        async with session(cluster.url) as sql:
            found = await sql.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where application_name like 'task-manager%'"
            )
        assert found > 2

    async def crash() -> None:
        await asyncio.to_thread(cluster.crash)
        await asyncio.to_thread(cluster.start)

    async def kill() -> None:
        scene.replicas.pop(0)
        os.kill(scene.servers.pop(0).process.pid, signal.SIGKILL)
        await scene.start()

    harms: list[Callable[[], Awaitable[None]]] = [end_connections, crash, kill, end_connections, crash]
    async with scene.played() as writers:
        for harm in harms:
            await writers.done(2)
            await harm()
        await writers.done(2)
