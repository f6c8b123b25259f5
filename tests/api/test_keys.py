"""API keys: shown once, good wherever a token is, for as long and as much as they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from tests.api.problems import problem
from tests.factories import PASSWORD, Factory, User

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
    assert key.keys() == {"id", "name", "read_only", "created_at", "expires_at", "key"}
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


async def test_a_key_that_is_revoked_is_good_no_more(make: Factory, client: httpx.AsyncClient) -> None:
    ada = await make.user()
    gone, stays = await made(ada), await made(ada)
    for key in (gone, stays):
        assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    assert (await ada.client.delete(f"/auth/keys/{gone['id']}")).status_code == 204
    problem(await client.get("/auth/me", headers=bearer(gone["key"])), 401)
    assert (await client.get("/auth/me", headers=bearer(stays["key"]))).status_code == 200
    problem(await ada.client.delete(f"/auth/keys/{gone['id']}"), 404)


async def test_a_key_expires_when_it_says_whether_it_is_remembered_or_not(
    make: Factory, client: httpx.AsyncClient, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await make.user()
    until = datetime.now(UTC) + timedelta(hours=1)
    key = await made(ada, expires_at=until.isoformat())
    assert datetime.fromisoformat(key["expires_at"]) == until
    assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr("service.sessions.time.time", lambda: until.timestamp() + 0.001)
        problem(await client.get("/auth/me", headers=bearer(key["key"])), 401)
    assert (await client.get("/auth/me", headers=bearer(key["key"]))).status_code == 200
    await sql.execute("update api_keys set expires_at = now()")
    make.app.state.rooms.logins.sessions.forget()
    problem(await client.get("/auth/me", headers=bearer(key["key"])), 401)


BAD_NAMES = ["", " ", "\t\n", "x" * 101, "nul\0"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_a_name_that_is_none_is_refused(make: Factory, name: str) -> None:
    ada = await make.user()
    problem(await ada.client.post("/auth/keys", json={"name": name}), 422, pointers={"/name"})


@pytest.mark.parametrize("name", ["x", "x" * 100, "отчёт 🦊", "nightly"])
async def test_any_other_name_is_taken_twice_too(make: Factory, name: str) -> None:
    ada = await make.user()
    assert [(await made(ada, name=name))["name"] for _ in range(2)] == [name] * 2


BAD_ENDS = ["2020-01-01", "9999-12-30", "9999-12-31T23:59:59Z", "tomorrow", "", 4_000_000_000, True, "2100-02-30"]


@pytest.mark.parametrize("expires_at", BAD_ENDS)
async def test_an_end_that_is_past_or_none_is_refused(make: Factory, expires_at: Any) -> None:
    ada = await make.user()
    body = {"name": "x", "expires_at": expires_at}
    problem(await ada.client.post("/auth/keys", json=body), 422, pointers={"/expires_at"})


@pytest.mark.parametrize("expires_at", ["2100-01-01", "9999-12-29T23:59:59.999999Z", "2100-01-01T00:00:00+05:00", None])
async def test_an_end_that_is_to_come_is_taken(make: Factory, expires_at: str | None) -> None:
    key = await made(await make.user(), expires_at=expires_at)
    assert (key["expires_at"] is None) == (expires_at is None)


async def test_an_account_has_at_most_a_hundred_keys(make: Factory, sql: Sql) -> None:
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
async def test_what_is_no_key_is_refused(make: Factory, client: httpx.AsyncClient, key: str) -> None:
    await made(await make.user())
    refused = await client.get("/auth/me", headers={b"Authorization": f"Bearer {key}".encode("latin-1")})
    assert problem(refused, 401)["code"] == "unauthorized"
