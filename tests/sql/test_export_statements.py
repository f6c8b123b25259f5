"""The rows of a stream: all of them, as they were when it began."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from service.core.errors import UnavailableError
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

EVERYTHING: dict[str, Any] = {
    "viewer_is_admin": False,
    **dict.fromkeys(("user_id", "status", "city", "created_from", "created_before", "sought")),
}


async def test_an_export_is_of_one_moment(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute(
        "insert into tasks (user_id, title) select $1, 'task ' || n from generate_series(1, 450) n", ada.id
    )
    sizes, titles = [], []
    async with aclosing(q.tasks.export.stream(database, viewer_id=ada.id, **EVERYTHING)) as batches:
        async for rows in batches:
            sizes.append(len(rows))
            titles += [row["title"] for row in rows]
            await make.sql.execute("delete from tasks where title > 'task 3'")
            await make.task(ada, title="new")
    assert sizes == [200, 200, 50]
    assert titles == [f"task {n}" for n in range(1, 451)]


async def test_a_stream_outlives_the_roles_idle_in_transaction_timeout(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute("insert into tasks (user_id, title) select $1, n from generate_series(1, 201) n", ada.id)
    async with database.connection() as connection:  # the pool's only one so far
        await connection.execute("set idle_in_transaction_session_timeout = '500ms'")
        backend = connection.get_server_pid()
    idle = "select clock_timestamp() - state_change > '1 s' from pg_stat_activity where pid = $1"
    async with aclosing(q.tasks.export.stream(database, viewer_id=ada.id, **EVERYTHING)) as batches:
        assert len(await anext(batches)) == 200
        while await make.sql.fetchval(idle, backend) is False:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert len(await anext(batches)) == 1


async def test_a_broken_stream_raises_the_services_own_error(database: Database, make: Factory) -> None:
    ada = await make.user()
    await make.sql.execute(
        "insert into tasks (user_id, title) select $1, 'task ' || n from generate_series(1, 450) n", ada.id
    )
    async with aclosing(q.tasks.export.stream(database, viewer_id=ada.id, **EVERYTHING)) as batches:
        await anext(batches)
        await make.sql.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query like 'select /* tasks.export */%'"
        )
        with pytest.raises(UnavailableError):
            await anext(batches)
