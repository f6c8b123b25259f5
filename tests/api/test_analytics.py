"""Counts of tasks by status and by owner, and the rights to read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.support.factories import Factory, User
from tests.support.problems import problem

NONE = {"todo": 0, "in_progress": 0, "done": 0}


async def summary(user: User, **params: Any) -> Any:
    answer = await user.client.get("/analytics", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def fill(make: Factory) -> tuple[User, User, User]:
    """Make Ada with three tasks of two statuses, Bob with one of another day, and an administrator with none."""
    ada, bob, admin = await make.user(username="Ada"), await make.user(username="bob"), await make.admin()
    for status in ("todo", "todo", "done"):
        await make.task(ada, status=status, created_at=datetime(2025, 5, 24, 12, tzinfo=UTC))
    await make.task(bob, status="in_progress", created_at=datetime(2025, 5, 25, tzinfo=UTC))
    return ada, bob, admin


async def test_without_tasks_every_status_is_zero(make: Factory) -> None:
    for viewer in (await make.user(), await make.admin()):
        assert await summary(viewer) == {"by_status": NONE, "by_user": {}}


async def test_a_user_sees_own_counts(make: Factory) -> None:
    ada, bob, _ = await fill(make)
    expected = {"by_status": {"todo": 2, "in_progress": 0, "done": 1}, "by_user": {"Ada": 3}}
    assert await summary(ada) == await summary(ada, user_id=ada.id) == expected
    assert await summary(bob) == {"by_status": NONE | {"in_progress": 1}, "by_user": {"bob": 1}}


async def test_an_administrator_sees_the_counts_of_all_users_or_one(make: Factory) -> None:
    ada, bob, admin = await fill(make)
    assert await summary(admin) == {
        "by_status": {"todo": 2, "in_progress": 1, "done": 1},
        "by_user": {"Ada": 3, "bob": 1},
    }
    assert await summary(admin, user_id=ada.id) == await summary(ada)
    assert await summary(admin, user_id=bob.id) == await summary(bob)
    assert await summary(admin, user_id=2**40) == {"by_status": NONE, "by_user": {}}


async def test_a_period_narrows_both_counts(make: Factory) -> None:
    *_, admin = await fill(make)
    first = {"by_status": {"todo": 2, "in_progress": 0, "done": 1}, "by_user": {"Ada": 3}}
    assert await summary(admin, end_date="2025-05-24") == first
    assert await summary(admin, start_date="2025-05-24", end_date="2025-05-24T23:59:59.999999Z") == first
    assert (await summary(admin, start_date="2025-05-25"))["by_user"] == {"bob": 1}
    assert (await summary(admin, start_date="2025-05-24T12:00:00Z", end_date="2025-05-25T00:00:00Z"))["by_user"] == {
        "Ada": 3,
        "bob": 1,
    }


async def test_the_counts_of_another_user_are_forbidden(make: Factory) -> None:
    ada, bob, admin = await fill(make)
    for user_id in (bob.id, admin.id, 2**40):
        problem(await ada.client.get("/analytics", params={"user_id": user_id}), 403)


async def test_counts_require_a_token(client: httpx.AsyncClient) -> None:
    problem(await client.get("/analytics"), 401)


@pytest.mark.parametrize("user_id", ["0", "-1", "", "me", "1.5", str(2**63)])
async def test_an_invalid_user_id_is_refused(make: Factory, user_id: str) -> None:
    admin = await make.admin()
    problem(await admin.client.get("/analytics", params={"user_id": user_id}), 422, pointers={"/query/user_id"})
