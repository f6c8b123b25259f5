"""The statements of `sql/analytics/`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from service.core.viewer import Viewer
from service.db.pool import Database
from service.db.queries import q
from tests.support.factories import Factory

NOON = datetime(2025, 5, 24, 12, tzinfo=UTC)


async def summary(db: Database, viewer: Viewer, **values: Any) -> tuple[dict[str, int], dict[str, int]]:
    arguments = {"user_id": None, "created_from": None, "created_before": None, **values}
    row = await q.analytics.summary(db, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, **arguments)
    return orjson.loads(orjson.dumps(row["by_status"])), orjson.loads(orjson.dumps(row["by_user"]))


async def test_without_tasks_every_status_is_there_and_no_user(database: Database, make: Factory) -> None:
    ada = await make.admin()
    assert await summary(database, ada.viewer) == ({"todo": 0, "in_progress": 0, "done": 0}, {})


async def test_tasks_are_counted_by_status_and_by_owner(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(username="ada"), await make.user(username="Bob"), await make.admin()
    for owner, status, number in ((ada, "todo", 3), (ada, "done", 1), (bob, "done", 2)):
        for _ in range(number):
            await make.task(owner, status=status)
    everyone = ({"todo": 3, "in_progress": 0, "done": 3}, {"Bob": 2, "ada": 4})
    adas = ({"todo": 3, "in_progress": 0, "done": 1}, {"ada": 4})
    nothing: tuple[dict[str, int], dict[str, int]] = ({"todo": 0, "in_progress": 0, "done": 0}, {})
    assert await summary(database, root.viewer) == everyone
    assert await summary(database, root.viewer, user_id=ada.id) == adas
    assert await summary(database, ada.viewer) == adas
    assert await summary(database, ada.viewer, user_id=ada.id) == adas
    assert await summary(database, ada.viewer, user_id=bob.id) == nothing


async def test_the_period_holds_its_start_and_not_its_end(database: Database, make: Factory) -> None:
    ada = await make.user(username="ada")
    for hours in range(4):
        await make.task(ada, created_at=NOON + timedelta(hours=hours))
    for first, last, number in ((None, None, 4), (1, None, 3), (None, 1, 1), (1, 3, 2), (4, None, 0)):
        by_status, by_user = await summary(
            database,
            ada.viewer,
            created_from=None if first is None else NOON + timedelta(hours=first),
            created_before=None if last is None else NOON + timedelta(hours=last),
        )
        assert by_status == {"todo": number, "in_progress": 0, "done": 0}
        assert by_user == ({"ada": number} if number else {})


async def test_a_span_begins_with_the_first_task_that_one_may_see(database: Database, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    await make.task(ada, created_at=NOON)
    await make.task(bob, created_at=NOON + timedelta(days=1))
    for viewer, user_id, first in ((root.viewer, None, NOON), (bob.viewer, None, NOON + timedelta(days=1))):
        span = await q.analytics.span(database, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin, user_id=user_id)
        assert span["first_created_at"] == first
        assert abs(span["present"] - datetime.now(UTC)) < timedelta(minutes=1)
    nobodys = await q.analytics.span(database, viewer_id=root.id, viewer_is_admin=True, user_id=root.id)
    assert nobodys["first_created_at"] is None


async def test_a_timeseries_counts_what_is_in_the_period(database: Database, make: Factory) -> None:
    ada = await make.user()
    for hours in range(5):
        await make.task(ada, created_at=NOON + timedelta(hours=hours))
    rows = await q.analytics.timeseries(
        database,
        viewer_id=ada.id,
        viewer_is_admin=False,
        user_id=None,
        period_from=NOON + timedelta(hours=1),
        period_before=NOON + timedelta(hours=4),
        starts=[NOON, NOON + timedelta(hours=2)],
    )
    assert [(row["start"], row["created"]) for row in rows] == [(NOON, 1), (NOON + timedelta(hours=2), 2)]
