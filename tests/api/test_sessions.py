"""Sessions: log in, refresh, log out, another password; which of their tokens are good, and what one sees of them."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from service.accounts.passwords import THREAD_NICENESS, Passwords
from service.accounts.session_cache import MAX_CACHED, SessionCache
from service.app import create_app
from service.core.viewer import Viewer
from tests.conftest import SECRET_KEY, make_settings
from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem
from tests.support.serving import serving

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
OTHER = "another horse, another staple"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def log_in(client: httpx.AsyncClient, user: User, password: str = PASSWORD, **headers: Any) -> dict[str, Any]:
    body = {"username": user.username, "password": password}
    answer = await client.post("/auth/login", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/auth/refresh", json={"refresh_token": token})


async def good(client: httpx.AsyncClient, token: str) -> bool:
    answer = await client.get("/auth/me", headers=bearer(token))
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


async def age(sql: Sql, seconds: float) -> None:
    """Let the last use of every refresh token lie so far back."""
    await sql.execute("update sessions set last_used_at = now() - make_interval(secs => $1)", seconds)


# Refresh


@pytest.mark.parametrize("how", ["json", "data"])
async def test_a_log_in_returns_two_tokens_of_one_session(make: Factory, client: httpx.AsyncClient, how: str) -> None:
    ada = await make.user()
    credentials = {"username": ada.username, "password": PASSWORD}
    answer = await client.post("/auth/login", **{how: credentials})  # type: ignore[arg-type]
    tokens = answer.json()
    assert await good(client, tokens["access_token"])
    renewed = await refresh(client, tokens["refresh_token"])
    assert renewed.headers["Cache-Control"] == "no-store"
    assert renewed.json().keys() == tokens.keys()
    assert renewed.json()["expires_in"] == 900
    assert renewed.json()["refresh_token"] != tokens["refresh_token"]
    assert await good(client, renewed.json()["access_token"])
    assert len((await ada.client.get("/auth/sessions")).json()["items"]) == 2  # the factory's, and this one


async def test_neither_token_does_the_others_work(make: Factory, client: httpx.AsyncClient) -> None:
    tokens = await log_in(client, await make.user())
    problem(await client.get("/auth/me", headers=bearer(tokens["refresh_token"])), 401)
    problem(await refresh(client, tokens["access_token"][:200]), 401)


async def test_a_chain_of_refreshes_goes_on(make: Factory, client: httpx.AsyncClient) -> None:
    tokens = await log_in(client, await make.user())
    for _ in range(5):
        tokens = (await refresh(client, tokens["refresh_token"])).json()
        assert await good(client, tokens["access_token"])


async def test_a_token_used_just_before_returns_the_same_successor(
    make: Factory, client: httpx.AsyncClient, sql: Sql
) -> None:
    first = (await log_in(client, await make.user()))["refresh_token"]
    second = (await refresh(client, first)).json()["refresh_token"]
    await age(sql, 9)
    assert [(await refresh(client, first)).json()["refresh_token"] for _ in range(3)] == [second] * 3
    assert (await refresh(client, second)).status_code == 200


async def test_a_token_used_longer_ago_ends_its_session(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    tokens, others = await log_in(client, ada), await log_in(client, ada)
    second = (await refresh(client, tokens["refresh_token"])).json()
    await age(sql, 11)
    refused = await refresh(client, tokens["refresh_token"])
    assert problem(refused, 401)["code"] == "unauthorized"
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    problem(await refresh(client, second["refresh_token"]), 401)
    assert (await refresh(client, others["refresh_token"])).status_code == 200  # that session alone
    assert await good(client, ada.token)


async def test_a_token_before_the_last_ends_its_session_at_once(make: Factory, client: httpx.AsyncClient) -> None:
    first = (await log_in(client, await make.user()))["refresh_token"]
    second = (await refresh(client, first)).json()["refresh_token"]
    third = (await refresh(client, second)).json()
    assert await good(client, third["access_token"])
    problem(await refresh(client, first), 401)
    assert not await good(client, third["access_token"])  # at once, whether it was remembered or not
    problem(await refresh(client, third["refresh_token"]), 401)
    problem(await refresh(client, second), 401)


async def test_an_invalid_refresh_token_is_refused_and_ends_no_session(
    make: Factory, client: httpx.AsyncClient, sql: Sql
) -> None:
    token = (await log_in(client, await make.user()))["refresh_token"]
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    session = raw[:8]
    forged = [
        base64.urlsafe_b64encode(one).decode().rstrip("=")
        for one in (session + bytes(48), raw[:8] + bytes(32) + raw[40:], bytes(56), b"\xff" * 56, raw[:-1])
    ]
    for garbage in ["", "x", "é" * 70, token[:-2], token + "A", "=" * 75, "A" * 200, *forged]:
        problem(await refresh(client, garbage), 401)
    problem(await refresh(client, "A" * 201), 422, pointers={"/refresh_token"})
    assert await sql.fetchval("select count(*) from sessions") == 2
    assert (await refresh(client, token)).status_code == 200


async def test_an_expired_session_is_refused(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    tokens = await log_in(client, ada)
    await sql.execute("update sessions set expires_at = now() where id = (select max(id) from sessions)")
    problem(await refresh(client, tokens["refresh_token"]), 401)
    assert len((await ada.client.get("/auth/sessions")).json()["items"]) == 1


async def test_fifty_concurrent_uses_of_one_token_return_one_successor(
    make: Factory, client: httpx.AsyncClient, sql: Sql
) -> None:
    tokens = await log_in(client, await make.user())
    for _ in range(3):
        answers = await asyncio.gather(*[refresh(client, tokens["refresh_token"]) for _ in range(50)])
        assert [answer.status_code for answer in answers] == [200] * 50
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1
        assert len({answer.json()["access_token"] for answer in answers}) == 50
        assert all(await asyncio.gather(*[good(client, answer.json()["access_token"]) for answer in answers]))
        assert await sql.fetchval("select count(*) from sessions") == 2
        tokens = answers[-1].json()
    assert (await refresh(client, tokens["refresh_token"])).status_code == 200


# The end of sessions


async def test_a_log_out_ends_both_tokens_and_nothing_else(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    tokens = await log_in(client, ada)
    left = await client.post("/auth/logout", headers=bearer(tokens["access_token"]))
    assert (left.status_code, left.content) == (204, b"")
    assert not await good(client, tokens["access_token"])
    problem(await refresh(client, tokens["refresh_token"]), 401)
    problem(await client.post("/auth/logout", headers=bearer(tokens["access_token"])), 401)
    assert await good(client, ada.token)


async def test_a_user_ends_only_own_sessions(make: Factory, client: httpx.AsyncClient) -> None:
    ada, bob = await make.user(), await make.admin()
    tokens = await log_in(client, ada)
    assert await good(client, tokens["access_token"])
    newest = (await ada.client.get("/auth/sessions")).json()["items"][0]["id"]
    problem(await bob.client.delete(f"/auth/sessions/{newest}"), 404)
    problem(await ada.client.delete(f"/auth/sessions/{2**63 - 1}"), 404)
    assert await good(client, tokens["access_token"])
    assert (await ada.client.delete(f"/auth/sessions/{newest}")).status_code == 204
    assert not await good(client, tokens["access_token"])
    problem(await refresh(client, tokens["refresh_token"]), 401)
    problem(await ada.client.delete(f"/auth/sessions/{newest}"), 404)
    assert (await ada.client.delete(f"/auth/sessions/{ada.viewer.session_id}")).status_code == 204
    problem(await ada.client.get("/auth/me"), 401)


async def test_the_oldest_of_more_than_a_hundred_sessions_ends(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    for _ in range(98):
        await make.session(ada.id)
    tokens = await log_in(client, ada)
    assert await good(client, ada.token)
    newer = await log_in(client, ada)
    assert not await good(client, ada.token)
    listed = (await client.get("/auth/sessions", headers=bearer(newer["access_token"]))).json()["items"]
    assert len(listed) == 100
    assert await good(client, tokens["access_token"])


# What one sees of them


async def test_sessions_are_listed_newest_first_and_say_which_one_asks(
    make: Factory, client: httpx.AsyncClient
) -> None:
    ada, bob = await make.user(), await make.user()
    first, second = await log_in(client, ada), await log_in(client, ada)
    await log_in(client, bob)
    listed = (await client.get("/auth/sessions", headers=bearer(first["access_token"]))).json()["items"]
    assert [one["id"] for one in listed] == sorted((one["id"] for one in listed), reverse=True)
    assert [one["current"] for one in listed] == [False, True, False]
    members = {"id", "created_at", "last_used_at", "expires_at", "client_address", "user_agent", "current"}
    assert all(one.keys() == members for one in listed)
    assert listed[0]["client_address"] == "127.0.0.1"
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()["key"]
    by_key = (await client.get("/auth/sessions", headers=bearer(key))).json()["items"]
    assert [one["current"] for one in by_key] == [False] * 3
    before = listed[1]
    await refresh(client, first["refresh_token"])
    after = (await client.get("/auth/sessions", headers=bearer(second["access_token"]))).json()["items"][1]
    assert after["created_at"] == before["created_at"]
    assert after["last_used_at"] > before["last_used_at"]
    assert after["expires_at"] > before["expires_at"]


AGENTS = [(b"Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"), (b"a\0b\0", "ab"), (b"x" * 5000, "x" * 300)]
AGENTS += [(b"caf\xe9 \xff", "café ÿ"), (b"", ""), ("日本".encode(), "日本".encode().decode("latin-1"))]


@pytest.mark.parametrize(("agent", "kept"), AGENTS, ids=str)
async def test_any_user_agent_is_kept_as_far_as_it_can_be(
    make: Factory, client: httpx.AsyncClient, agent: bytes, kept: str
) -> None:
    ada = await make.user()
    body = {"username": ada.username, "password": PASSWORD}
    assert (await client.post("/auth/login", json=body, headers={b"User-Agent": agent})).status_code == 200
    assert (await ada.client.get("/auth/sessions")).json()["items"][0]["user_agent"] == kept


async def test_a_client_that_names_no_agent_has_none(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    del client.headers["User-Agent"]
    await log_in(client, ada)
    assert (await ada.client.get("/auth/sessions")).json()["items"][0]["user_agent"] is None


# Another password


async def change(client: httpx.AsyncClient, token: str, current: str, new: str) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await client.put("/auth/password", json=body, headers=bearer(token))


async def test_a_password_change_ends_all_other_sessions_and_keeps_keys(
    make: Factory, client: httpx.AsyncClient
) -> None:
    ada, bob = await make.user(), await make.user()
    own, other = await log_in(client, ada), await log_in(client, ada)
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()["key"]
    for token in (own["access_token"], other["access_token"], ada.token, bob.token, key):
        assert await good(client, token)
    answer = await change(client, own["access_token"], PASSWORD, OTHER)
    assert (answer.status_code, answer.content) == (204, b"")
    tokens = (own["access_token"], other["access_token"], ada.token, bob.token, key)
    assert [await good(client, token) for token in tokens] == [True, False, False, True, True]
    problem(await refresh(client, other["refresh_token"]), 401)
    assert (await refresh(client, own["refresh_token"])).status_code == 200
    assert (await log_in(client, ada, OTHER))["access_token"]
    problem(await client.post("/auth/login", json={"username": ada.username, "password": PASSWORD}), 401)


async def test_a_password_change_with_an_api_key_ends_every_session(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()["key"]
    assert (await change(client, key, PASSWORD, OTHER)).status_code == 204
    assert [await good(client, token) for token in (ada.token, key)] == [False, True]


async def test_a_password_change_requires_the_current_password(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    tokens = await log_in(client, ada)
    problem(await change(client, ada.token, "wrong password", OTHER), 422, pointers={"/current_password"})
    problem(await change(client, ada.token, PASSWORD, "short"), 422, pointers={"/new_password"})
    problem(await change(client, ada.token, PASSWORD, "x" * 257), 422, pointers={"/new_password"})
    assert await good(client, tokens["access_token"])
    await log_in(client, ada)


async def test_one_of_two_concurrent_password_changes_is_made(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    answers = await asyncio.gather(*[change(client, ada.token, PASSWORD, f"{OTHER} {n}") for n in range(4)])
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409, 422}
    await log_in(client, ada, f"{OTHER} {statuses.index(204)}")


async def test_guesses_at_the_present_password_are_throttled_as_log_ins_are(
    make: Factory, client: httpx.AsyncClient, database_url: str
) -> None:
    ada = await make.user()
    async with serving(make_settings(database_url, login_limit_per_minute=2)) as limited:
        guesses = [await change(limited, ada.token, "wrong password", OTHER) for _ in range(30)]
        assert {answer.status_code for answer in guesses} == {422, 429}
        refused = await change(limited, ada.token, PASSWORD, OTHER)
        assert problem(refused, 429)["code"] == "rate_limited"
        assert int(refused.headers["Retry-After"]) >= 1
    await log_in(client, ada)


# Accounts that are not active, and keys that change


async def test_an_inactive_account_is_as_unknown_to_a_log_in_as_no_account(
    make: Factory, client: httpx.AsyncClient, sql: Sql
) -> None:
    ada = await make.user()
    tokens = await log_in(client, ada)
    await sql.execute("update users set active = false where id = $1", ada.id)  # in SQL: its sessions stay
    body = {"username": ada.username, "password": PASSWORD}
    inactive = await client.post("/auth/login", json=body)
    unknown = await client.post("/auth/login", json=body | {"username": "nobody"})
    assert problem(inactive, 401) | {"request_id": ""} == problem(unknown, 401) | {"request_id": ""}
    problem(await refresh(client, tokens["refresh_token"]), 401)


async def test_unknown_and_inactive_users_take_as_long_as_active_ones(sql: Sql, database_url: str) -> None:
    app = create_app(make_settings(database_url), passwords=Passwords(cost=10))  # a hash is what takes the time
    async with app.router.lifespan_context(app):
        make = Factory(sql, app)
        ada, gone = await make.user(), await make.user()
        await sql.execute("update users set active = false where id = $1", gone.id)
        took: dict[str, list[float]] = {ada.username: [], gone.username: [], "nobody": [], "no such name!": []}
        for _ in range(7):
            for name, times in took.items():
                begun = time.process_time()
                body = {"username": name, "password": "wrong password"}
                problem(await ada.client.post("/auth/login", json=body), 401)
                times.append(time.process_time() - begun)
    least = {name: min(times) for name, times in took.items()}
    assert max(least.values()) < 1.5 * min(least.values()), least


async def test_another_secret_key_logs_nobody_out(make: Factory, client: httpx.AsyncClient, database_url: str) -> None:
    ada = await make.admin()
    await make.user()
    tokens = await log_in(client, ada)
    users = (await ada.client.get("/users?limit=1")).json()["next_cursor"]
    events = (await ada.client.get("/events")).json()["cursor"]
    task = await make.task(ada)
    rotated = make_settings(database_url, secret_key="new" * 16, secret_key_previous=SECRET_KEY)
    async with serving(rotated) as other:
        assert await good(other, tokens["access_token"])
        for path in (f"/users?limit=1&cursor={users}", f"/events?since={events}"):
            assert len((await other.get(path, headers=bearer(tokens["access_token"]))).json()["items"]) == 1, path
        renewed = (await refresh(other, tokens["refresh_token"])).json()
        assert await good(other, renewed["access_token"])
        again = await refresh(other, tokens["refresh_token"])
        assert again.json()["refresh_token"] == renewed["refresh_token"]
        assert (await refresh(other, renewed["refresh_token"])).status_code == 200
        problem(await refresh(other, tokens["refresh_token"]), 401)  # the old key's seal is still known: reuse
        assert not await good(other, renewed["access_token"])
        await log_in(other, ada)
    assert task


async def test_a_removed_secret_key_invalidates_tokens_and_keeps_passwords(
    make: Factory, client: httpx.AsyncClient, database_url: str
) -> None:
    ada = await make.user()
    async with serving(make_settings(database_url, secret_key="new" * 16)) as other:
        assert not await good(other, ada.token)
        await log_in(other, ada)


async def test_forgetting_one_account_does_not_scan_the_others(make: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make.app.state.services
    sessions = SessionCache(state.db, state.sessions.tokens, is_current=lambda: True)
    ada = await make.user()
    await sessions.authenticate(ada.token)
    for n in range(MAX_CACHED):  # what is remembered is a part of it that none of the statements has a say in
        sessions._sessions.put(-n, Viewer(-n, False, session_id=-n))
    assert len(sessions._sessions) == MAX_CACHED
    assert ada.viewer.session_id not in sessions._sessions
    took = []
    for n in range(1, 10):
        begun = time.perf_counter()
        sessions.forget(-n)
        took.append(time.perf_counter() - begun)
    assert len(sessions._sessions) == MAX_CACHED - 9
    assert min(took) < 0.001


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
async def test_password_hashing_runs_at_low_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(cost=4)
    monkeypatch.setattr(passwords, "_matches", lambda *_: os.nice(0))
    assert await passwords.verify(PASSWORD, None, payer=None) == min(os.nice(0) + THREAD_NICENESS, 19)
    passwords.close()
