"""Tasks with equal values in every column, and iteration over the pages of a list."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from tests.support.factories import Factory, User
from tests.support.problems import problem

Tasks = list[dict[str, Any]]
SORTS = [sign + name for name in ("created_at", "updated_at", "title", "status", "id") for sign in ("", "-")]
STATUSES = ["todo", "in_progress", "done"]
NOON = datetime(2025, 5, 24, 12, tzinfo=UTC)
TITLES = ["b", "B", "a", "a b", "ab", "é", "e\u0301", "Z", "z", "\uff5e", "🦊", "10", "9", "_", "ß", "\x01", "b", "B"]


async def fill(make: Factory, owner: User) -> Tasks:
    """Create tasks with equal values in every column; return them with parsed timestamps."""
    for n, title in enumerate(TITLES):
        await make.task(
            owner,
            title=title,
            status=STATUSES[n % 3],
            created_at=NOON + timedelta(microseconds=n * 7 % 5),
            updated_at=NOON + timedelta(days=n * 5 % 4),
        )
    tasks = (await owner.client.get("/tasks?limit=100")).json()["items"]
    return [read(task) for task in tasks]


def read(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task with parsed timestamps; as texts they do not sort, since the fraction is optional."""
    return task | {name: datetime.fromisoformat(task[name]) for name in ("created_at", "updated_at")}


async def walk(user: User, *, sort: str = "-created_at", limit: int = 20, **filters: Any) -> AsyncIterator[Tasks]:
    """Yield the items of each page until there is no next cursor."""
    cursor: dict[str, str] = {}
    for _ in itertools.repeat(None, 200):
        answer = await user.client.get("/tasks", params={"sort": sort, "limit": limit, **filters, **cursor})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert 0 < len(body["items"]) <= limit or not cursor
        yield body["items"]
        if body["next_cursor"] is None:
            return
        cursor = {"cursor": body["next_cursor"]}
    raise AssertionError("the pages do not end")


def in_order(tasks: Tasks, sort: str) -> list[int]:
    """Return the ids as Python sorts them: text by code point, ties by id in the same direction."""
    key = itemgetter(sort.removeprefix("-"), "id")
    return [task["id"] for task in sorted(tasks, key=key, reverse=sort.startswith("-"))]


async def ids(user: User, **params: Any) -> list[int]:
    answer = await user.client.get("/tasks", params={"sort": "id", "limit": 100, **params})
    assert answer.status_code == 200, answer.text
    return [task["id"] for task in answer.json()["items"]]


async def refused(user: User, pointer: str, **params: Any) -> None:
    problem(await user.client.get("/tasks", params=params), 422, pointers={pointer})
