"""A revocation takes effect at once in the process that performs it, without any notification."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import asyncpg
import httpx
import pytest

from service.accounts.passwords import Passwords
from service.app import create_app
from service.events.signals import Heartbeat
from tests.conftest import make_settings
from tests.support.factories import PASSWORD, Factory, User

NOWHERE = "postgresql://127.0.0.1:1/none"


@pytest.fixture
async def deaf(
    sql: asyncpg.Connection[asyncpg.Record], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Factory]:
    """An application that trusts its session cache and gets no notifications."""
    monkeypatch.setattr(Heartbeat, "is_fresh", lambda _self: True)
    app = create_app(make_settings(database_url, database_listen_url=NOWHERE), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield Factory(sql, app)


async def good(client: httpx.AsyncClient, path: str = "/auth/me") -> int:
    return (await client.get(path)).status_code


def with_token(user: User, token: str) -> httpx.AsyncClient:
    user.client.headers["Authorization"] = f"Bearer {token}"
    return user.client


async def logged_in(user: User) -> dict[str, Any]:
    answer = await user.client.post("/auth/login", json={"username": user.username, "password": PASSWORD})
    return dict(answer.json())


async def ended(answer: Awaitable[httpx.Response]) -> None:
    assert (await answer).is_success


async def test_a_process_without_a_listener_keeps_its_cache(deaf: Factory) -> None:
    """Else the tests below might be right for another reason."""
    ada = await deaf.user()
    assert await good(ada.client) == 200
    await deaf.sql.execute("delete from sessions where user_id = $1", ada.id)
    assert await good(ada.client) == 200


async def test_a_log_out_and_the_end_of_a_session(deaf: Factory) -> None:
    ada = await deaf.user()
    other = (await logged_in(ada))["access_token"]
    own = ada.token
    assert [await good(with_token(ada, token)) for token in (own, other)] == [200, 200]
    await ended(ada.client.post("/auth/logout"))
    assert [await good(with_token(ada, token)) for token in (own, other)] == [200, 401]
    await ended(with_token(ada, own).delete(f"/auth/sessions/{ada.viewer.session_id}"))
    assert await good(ada.client) == 401


async def test_a_password_change(deaf: Factory) -> None:
    ada = await deaf.user()
    other = (await logged_in(ada))["access_token"]
    assert [await good(with_token(ada, token)) for token in (other, ada.token)] == [200, 200]
    await ended(ada.client.put("/auth/password", json={"current_password": PASSWORD, "new_password": PASSWORD}))
    assert [await good(with_token(ada, token)) for token in (other, ada.token)] == [401, 200]


async def test_a_role_change_and_a_deactivation(deaf: Factory) -> None:
    admin, ada = await deaf.admin(), await deaf.user()
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()["key"]
    for role, expected in (("user", 403), ("admin", 200), ("user", 403)):
        await ended(admin.client.patch(f"/users/{ada.id}", json={"role": role}))
        assert [await good(with_token(ada, token), "/users") for token in (key, ada.token)] == [expected] * 2
    await ended(admin.client.patch(f"/users/{ada.id}", json={"active": False}))
    assert [await good(with_token(ada, token)) for token in (key, ada.token)] == [401, 401]


async def test_the_end_of_a_key(deaf: Factory) -> None:
    ada = await deaf.user()
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()
    assert await good(with_token(ada, key["key"])) == 200
    await ended(ada.client.delete(f"/auth/keys/{key['id']}"))
    assert await good(ada.client) == 401


async def test_a_refresh_token_that_is_used_again(deaf: Factory) -> None:
    ada = await deaf.user()
    first = await logged_in(ada)
    second = (await ada.client.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    await ended(ada.client.post("/auth/refresh", json={"refresh_token": second["refresh_token"]}))
    assert await good(with_token(ada, first["access_token"])) == 200
    assert (await ada.client.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})).status_code == 401
    assert await good(ada.client) == 401


async def test_the_oldest_session_above_the_maximum(deaf: Factory) -> None:
    ada = await deaf.user()
    for _ in range(99):
        await deaf.session(ada.id)
    assert await good(ada.client) == 200
    await logged_in(ada)
    assert await good(ada.client) == 401
