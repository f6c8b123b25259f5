"""The statements of `demo`: what counts as empty, and tasks with a past."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from service.accounts.passwords import Passwords
from service.cli import demo
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

THEN = datetime(2025, 5, 24, 14, 35, tzinfo=UTC)


async def test_administrators_alone_leave_it_empty_users_and_tasks_do_not(database: Database, make: Factory) -> None:
    assert await q.demo.is_empty(database) is True
    root = await make.admin()
    assert await q.demo.is_empty(database) is True
    task_id = await make.task(root)
    assert await q.demo.is_empty(database) is False
    await make.sql.execute("delete from tasks where id = $1", task_id)
    assert await q.demo.is_empty(database) is True
    await make.user()
    assert await q.demo.is_empty(database) is False


async def test_one_of_two_concurrent_runs_fills_the_database_and_the_other_reports_why_not(
    database: Database, make: Factory
) -> None:
    passwords = Passwords(cost=4)
    both = [
        demo.fill(database, tasks=600, password="correct horse", passwords=passwords, advance=lambda _: None)
        for _ in range(2)
    ]
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(map(str, ended)) == sorted(["None", demo.NOT_EMPTY])
    passwords.close()


async def test_tasks_keep_their_order_and_are_completed_when_last_changed(database: Database, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    later = THEN + timedelta(days=3)
    rows = [
        {"user_id": bob.id, "title": "b", "description": "x", "status": "done", "city": "Oslo", "updated_at": later},
        {"user_id": ada.id, "title": "a", "description": None, "status": "todo", "city": None, "updated_at": THEN},
    ]
    made = await q.demo.create_tasks(
        database,
        user_ids=[bob.id, ada.id],
        titles=["b", "a"],
        descriptions=["x", None],
        statuses=["done", "todo"],
        cities=["Oslo", None],
        created_at=[THEN, THEN],
        updated_at=[later, THEN],
    )
    assert made == 2
    kept = await make.sql.fetch("select * from tasks order by id")
    assert [{name: row[name] for name in rows[0]} for row in kept] == rows
    assert [(row["created_at"], row["completed_at"], row["version"]) for row in kept] == [
        (THEN, later, 1),
        (THEN, None, 1),
    ]
    assert await make.sql.fetchval("select count(*) from task_events where type = 'task.created'") == 2
