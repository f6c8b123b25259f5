"""API keys: shown once, good wherever a token is, for as long and as much as they say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def made(user: User, **fields: Any) -> dict[str, Any]:
    answer = await user.client.post("/auth/keys", json={"name": "nightly"} | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_shown_once_and_kept_as_its_hash(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    key = await made(ada, name="nightly report")
    assert key.keys() == {"id", "name", "read_only", "created_at", "expires_at", "last_used_at", "key"}
    assert (key["name"], key["read_only"], key["expires_at"]) == ("nightly report", False, None)
    assert key["key"].startswith("tm_")
    assert len(key["key"]) == 3 + 43  # 256 bits
    listed = await ada.client.get("/auth/keys")
    assert listed.json()["items"] == [{name: value for name, value in key.items() if name != "key"}]
    assert key["key"] not in str([tuple(row) for row in await sql.fetch("select * from api_keys")])
    assert (await client.get("/auth/me", headers=bearer(key["key"]))).json()["id"] == ada.id


async def test_keys_are_listed_newest_first_and_for_their_owner_alone(make: Factory) -> None:
    ada, admin = await make.user(), await make.admin()
    ids = [(await made(ada))["id"] for _ in range(3)]
    assert [one["id"] for one in (await ada.client.get("/auth/keys")).json()["items"]] == ids[::-1]
    assert (await admin.client.get("/auth/keys")).json()["items"] == []
    problem(await admin.client.delete(f"/auth/keys/{ids[0]}"), 404)
    assert len((await ada.client.get("/auth/keys")).json()["items"]) == 3


async def test_a_revoked_key_is_refused(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    gone, stays = await made(ada), await made(ada)
    for key in (gone, stays):
        assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    assert (await ada.client.delete(f"/auth/keys/{gone['id']}")).status_code == 204
    problem(await client.get("/auth/me", headers=bearer(gone["key"])), 401)
    assert (await client.get("/auth/me", headers=bearer(stays["key"]))).status_code == 200
    problem(await ada.client.delete(f"/auth/keys/{gone['id']}"), 404)


async def test_a_key_expires_on_time_whether_cached_or_not(
    make: Factory, client: httpx.AsyncClient, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    until = datetime.now(UTC) + timedelta(hours=1)
    key = await made(ada, expires_at=until.isoformat())
    assert datetime.fromisoformat(key["expires_at"]) == until
    assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr("service.accounts.session_cache.time.time", lambda: until.timestamp() + 0.001)
        problem(await client.get("/auth/me", headers=bearer(key["key"])), 401)
    assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    await sql.execute("update api_keys set expires_at = now()")
    make.app.state.services.session_cache.forget()
    problem(await client.get("/auth/me", headers=bearer(key["key"])), 401)


BAD_NAMES = ["", " ", "\t\n", "x" * 101, "nul\0"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_an_invalid_key_name_is_refused(make: Factory, name: str) -> None:
    ada = await make.user()
    problem(await ada.client.post("/auth/keys", json={"name": name}), 422, pointers={"/name"})


@pytest.mark.parametrize("name", ["x", "x" * 100, "отчёт 🦊", "nightly"])
async def test_any_other_name_is_accepted_even_twice(make: Factory, name: str) -> None:
    ada = await make.user()
    assert [(await made(ada, name=name))["name"] for _ in range(2)] == [name] * 2


BAD_ENDS = ["2020-01-01", "9999-12-30", "9999-12-31T23:59:59Z", "tomorrow", "", 4_000_000_000, True, "2100-02-30"]


@pytest.mark.parametrize("expires_at", BAD_ENDS)
async def test_an_invalid_or_past_expiry_is_refused(make: Factory, expires_at: Any) -> None:
    ada = await make.user()
    body = {"name": "x", "expires_at": expires_at}
    problem(await ada.client.post("/auth/keys", json=body), 422, pointers={"/expires_at"})


@pytest.mark.parametrize("expires_at", ["2100-01-01", "9999-12-29T23:59:59.999999Z", "2100-01-01T00:00:00+05:00", None])
async def test_a_future_expiry_is_accepted(make: Factory, expires_at: str | None) -> None:
    key = await made(await make.user(), expires_at=expires_at)
    assert (key["expires_at"] is None) == (expires_at is None)


async def test_an_account_has_a_hundred_keys_or_fewer(make: Factory, sql: Sql) -> None:
    ada, bob = await make.user(), await make.user()
    await sql.execute(
        "insert into api_keys (user_id, name, hash) select $1, 'x', sha256(n::text::bytea)"
        " from generate_series(1, 99) n",
        ada.id,
    )
    last = await made(ada)
    assert problem(await ada.client.post("/auth/keys", json={"name": "x"}), 409)["code"] == "conflict"
    await made(bob)
    await ada.client.delete(f"/auth/keys/{last['id']}")
    await made(ada)


async def test_a_key_has_its_accounts_role_as_it_is_now(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    admin, other = await make.admin(), await make.admin()
    key = bearer((await made(admin))["key"])
    assert (await client.get("/users", headers=key)).status_code == 200
    await other.client.patch(f"/users/{admin.id}", json={"role": "user"})
    problem(await client.get("/users", headers=key), 403)
    await other.client.patch(f"/users/{admin.id}", json={"role": "admin"})
    assert (await client.get("/users", headers=key)).status_code == 200
    await other.client.patch(f"/users/{admin.id}", json={"active": False})
    problem(await client.get("/auth/me", headers=key), 401)
    await other.client.patch(f"/users/{admin.id}", json={"active": True})
    assert (await client.get("/auth/me", headers=key)).status_code == 200  # keys stay, sessions end
    problem(await admin.client.get("/auth/me"), 401)


async def test_a_key_has_no_session_to_log_out_of(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    key = bearer((await made(ada))["key"])
    problem(await client.post("/auth/logout", headers=key), 404)
    assert (await client.get("/auth/me", headers=key)).status_code == 200
    assert (await ada.client.get("/auth/me")).status_code == 200


async def test_a_key_that_may_only_read_changes_nothing(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    key = await made(ada, read_only=True)
    task = await make.task(ada)
    client.headers.update(bearer(key["key"]))
    assert [one["id"] for one in (await client.get("/tasks")).json()["items"]] == [task]
    body = {"current_password": PASSWORD, "new_password": PASSWORD}
    for refused in (
        await client.post("/tasks", json={"title": "x"}),
        await client.post("/auth/keys", json={"name": "x"}),
        await client.delete(f"/auth/keys/{key['id']}"),
        await client.put("/auth/password", json=body),
        await client.delete(f"/tasks/{task}"),
    ):
        assert problem(refused, 403)["code"] == "forbidden"
    ticket = (await client.post("/auth/ticket")).json()["ticket"]
    assert (await client.get(f"/events?ticket={ticket}")).status_code == 200
    assert await sql.fetchval("select count(*) from api_keys") == 1


@pytest.mark.parametrize("key", ["tm_", "tm_x", "tm_" + "A" * 43, "tm_" + "A" * 5000, "tm_\xff", "tm_a b"])
async def test_an_invalid_api_key_is_refused(make: Factory, client: httpx.AsyncClient, key: str) -> None:
    await made(await make.user())
    refused = await client.get("/auth/me", headers={b"Authorization": f"Bearer {key}".encode("latin-1")})
    assert problem(refused, 401)["code"] == "unauthorized"


@pytest.mark.parametrize("read_only", [False, True])
async def test_only_a_log_in_session_creates_keys(
    make: Factory, client: httpx.AsyncClient, sql: Sql, read_only: bool
) -> None:
    ada = await make.user()
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    key = await made(ada, expires_at=soon, read_only=read_only)
    client.headers.update(bearer(key["key"]))
    for body in ({"name": "child"}, {"name": "child", "expires_at": soon, "read_only": True}):
        assert problem(await client.post("/auth/keys", json=body), 403)["code"] == "forbidden"
    ticket = (await client.post("/auth/ticket")).json()["ticket"]
    for place in ({"params": {"ticket": ticket}}, {"headers": bearer(ticket)}):
        refused = await client.post("/auth/keys", json={"name": "child"}, **place)
        assert refused.status_code in {401, 403, 422}
    assert await sql.fetchval("select count(*) from api_keys") == 1
    await made(ada)


async def test_a_key_that_has_been_there_keeps_its_other_rights(make: Factory, client: httpx.AsyncClient) -> None:
    admin = await make.admin()
    key, other = await made(admin), await made(admin)
    client.headers.update(bearer(key["key"]))
    task = await client.post("/tasks", json={"title": "by a machine"})
    assert task.status_code == 201
    assert (await client.delete(f"/tasks/{task.json()['id']}")).status_code == 204
    assert len((await client.get("/auth/keys")).json()["items"]) == 2
    assert (await client.delete(f"/auth/keys/{other['id']}")).status_code == 204
    assert (await client.get("/auth/sessions")).status_code == 200
    assert (await client.get("/users")).status_code == 200
    new = {"username": "newcomer", "password": PASSWORD}
    assert (await client.post("/auth/register", json=new)).status_code == 201


CANCEL = (
    "select pg_cancel_backend(pid) from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))"
)


async def used(user: User, number: int = 0) -> datetime | None:
    """Return when a key of the user was last used, by its place in the list."""
    last_used = (await user.client.get("/auth/keys")).json()["items"][number]["last_used_at"]
    return None if last_used is None else datetime.fromisoformat(last_used)


async def noted(make: Factory) -> None:
    """Wait until the uses so far are written."""
    writer = make.app.state.services.session_cache._key_uses._task
    if writer:
        await asyncio.wait_for(writer, 10)


async def test_the_list_shows_when_a_key_was_last_used(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    key = await made(ada)
    assert key["last_used_at"] is None
    await made(ada)
    before = await sql.fetchval("select now()")
    assert [await used(ada), await used(ada, 1)] == [None, None]
    assert (await client.get("/tasks", headers=bearer(key["key"]))).status_code == 200
    await noted(make)
    last_used = await used(ada, 1)
    assert last_used is not None
    assert before <= last_used <= await sql.fetchval("select now()")
    assert await used(ada) is None  # the other key


async def test_a_use_is_written_once_an_hour(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada = await make.user()
    key = await made(ada)
    key_uses = make.app.state.services.session_cache._key_uses

    async def use_again() -> datetime:
        key_uses._noted.clear()  # as in another process, or in this one after an hour
        assert (await client.get("/tasks", headers=bearer(key["key"]))).status_code == 200
        await noted(make)
        last_used = await used(ada)
        assert last_used is not None
        return last_used

    first = await use_again()
    assert await use_again() == first
    set_back = "update api_keys set last_used_at = last_used_at - make_interval(mins => $1)"
    await sql.execute(set_back, 59)
    assert await use_again() == first - timedelta(minutes=59)
    await sql.execute(set_back, 2)
    assert await use_again() > first


async def test_a_key_that_is_refused_is_not_used(make: Factory, client: httpx.AsyncClient, sql: Sql) -> None:
    ada, bob, eve = await make.user(), await make.user(), await make.user()
    keys = [await made(user) for user in (ada, bob, eve)]
    await sql.execute("update api_keys set expires_at = now() where user_id = $1", ada.id)
    await sql.execute("update users set active = false where id = $1", bob.id)
    for key in keys[:2]:
        problem(await client.get("/tasks", headers=bearer(key["key"])), 401)
    assert (await client.get("/tasks", headers=bearer(keys[2]["key"]))).status_code == 200
    await noted(make)
    rows = await sql.fetch("select user_id from api_keys where last_used_at is not null")
    assert [row["user_id"] for row in rows] == [eve.id]


async def test_a_use_that_cannot_be_written_delays_no_request(
    make: Factory, client: httpx.AsyncClient, sql: Sql
) -> None:
    ada = await make.user()
    key, other = await made(ada), await made(ada)
    key_uses = make.app.state.services.session_cache._key_uses
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("select from api_keys for update")
    for one in (key, other):
        assert (await client.get("/tasks", headers=bearer(one["key"]))).status_code == 200
    async with asyncio.timeout(10):
        while not await sql.fetchval(CANCEL):
            assert not key_uses._task.done()
    await transaction.rollback()
    await noted(make)
    uses = [one["last_used_at"] for one in (await ada.client.get("/auth/keys")).json()["items"]]
    assert [use is None for use in uses].count(True) == 1  # the write that was cancelled
    for one in (key, other):
        assert (await client.get("/tasks", headers=bearer(one["key"]))).status_code == 200
