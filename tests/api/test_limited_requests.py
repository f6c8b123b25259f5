"""Rate limits over HTTP: whose budget a request spends, and what its reply says of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import anyio
import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from service.accounts.passwords import Passwords
from service.accounts.tokens import Tokens
from service.api.client_address import client_address
from service.api.pipeline.body_limits import MAX_BODY_BYTES
from service.app import create_app
from service.core.viewer import Viewer
from tests.conftest import make_settings
from tests.support.clocks import Clock, stopped_clock
from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import problem

POLICY = re.compile(r'"requests";q=(\d+);w=60')
LIMIT = re.compile(r'"requests";r=(\d+);t=(\d+)')
PROXIES = "10.0.0.0/8, 192.0.2.7, fd00::/8"


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """No permit comes back while a test is under way."""
    with stopped_clock() as clock:
        yield clock


@asynccontextmanager
async def limited(
    database_url: str, *, per_minute: int = 0, logins_limit: int = 0, **values: object
) -> AsyncIterator[FastAPI]:
    limits = {"rate_limit_per_minute": per_minute, "login_limit_per_minute": logins_limit, **values}
    app = create_app(make_settings(database_url, **limits), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield app


def browser(app: FastAPI, *, peer: str | None = "127.0.0.1") -> httpx.AsyncClient:
    """Return a client that comes from an address."""
    transport = httpx.ASGITransport(app=app, client=(peer, 1234) if peer is not None else None)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def statuses(client: httpx.AsyncClient, *headers: httpx._types.HeaderTypes) -> list[int]:
    return [(await client.get("/tasks", headers=one)).status_code for one in headers]


def forwarded(*lines: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", line) for line in lines]


async def test_a_user_has_one_budget_over_all_paths(database_url: str, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    async with limited(database_url, per_minute=5) as app:
        make = Factory(sql, app)
        ada, bob = await make.user(), await make.user()
        task_id = await make.task(ada)
        replies = [
            await ada.client.get("/tasks"),
            await ada.client.get("/auth/me"),
            await ada.client.get(f"/tasks/{task_id}"),
            await ada.client.get("/analytics"),
            await ada.client.delete(f"/tasks/{task_id}"),
            await ada.client.get("/auth/me"),
            await ada.client.post("/tasks", json={"title": "one more"}),
        ]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 200, 204, 429, 429]
        assert [(await bob.client.get("/tasks")).status_code for _ in range(6)] == [200] * 5 + [429]
        assert (await browser(app).get("/tasks")).status_code == 401  # the address has one of its own


async def test_a_request_without_a_valid_token_shares_the_budget_of_its_address(database_url: str) -> None:
    async with limited(database_url, per_minute=3) as app:
        forms = [
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic eDp5"},
            {"Authorization": "Bearer x"},
        ]
        assert await statuses(browser(app), *forms) == [401, 401, 401, 429]
        assert await statuses(browser(app, peer="198.51.100.1"), *forms) == [401, 401, 401, 429]


async def test_a_refusal_is_a_problem_with_retry_after(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record], clock: Clock
) -> None:
    async with limited(database_url, per_minute=2) as app:
        ada = await Factory(sql, app).user()
        assert [(await ada.client.get("/tasks")).status_code for _ in range(2)] == [200, 200]
        reply = await ada.client.get("/tasks")
        assert problem(reply, 429)["code"] == "rate_limited"
        assert reply.headers["Retry-After"] == "30"
        assert reply.headers["RateLimit"] == '"requests";r=0;t=60'
        clock.pass_by(29_500)
        assert (await ada.client.get("/tasks")).headers["Retry-After"] == "1"
        clock.pass_by(501)
        assert (await ada.client.get("/tasks")).status_code == 200


async def test_every_response_of_a_limited_route_has_the_remaining_permits(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with limited(database_url, per_minute=6) as app:
        ada = await Factory(sql, app).user()
        task_id = await Factory(sql, app).task(ada)
        replies = [
            await ada.client.get(f"/tasks/{task_id}"),
            await ada.client.get(f"/tasks/{task_id}", headers={"If-None-Match": "*"}),
            await ada.client.get("/tasks/999999"),
            await ada.client.get("/tasks", params={"limit": "many"}),
            await ada.client.post("/tasks", json={}),
            await ada.client.post("/tasks", content=b"title", headers={"Content-Type": "text/plain"}),
            await ada.client.get("/tasks"),
        ]
        assert [reply.status_code for reply in replies] == [200, 304, 404, 422, 422, 415, 429]
        replies.append(await browser(app).get("/tasks"))
        assert replies[-1].status_code == 401
        left = []
        for reply in replies:
            assert POLICY.fullmatch(reply.headers["RateLimit-Policy"])
            rate_limit = LIMIT.fullmatch(reply.headers["RateLimit"])
            assert rate_limit
            assert 1 <= int(rate_limit[2]) <= 60
            left.append(int(rate_limit[1]))
        assert left == [5, 4, 3, 2, 1, 0, 0, 5]


async def test_requests_without_a_route_are_limited_too(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    json = {"Content-Type": "application/json"}
    async with limited(database_url, per_minute=12, logins_limit=9) as app:
        ada = await Factory(sql, app).user()
        replies = [
            await ada.client.post("/tasks", content=b"{", headers=json),
            await ada.client.post("/tasks", content=b" " * (MAX_BODY_BYTES + 1), headers=json),
            await ada.client.post("/tasks", content=chunks(MAX_BODY_BYTES + 1), headers=json),
            await ada.client.get("/nowhere"),
            await ada.client.put("/tasks"),
            await ada.client.options("/tasks"),
            await ada.client.get("/auth/login"),
            await ada.client.get("/healthz/"),
            await ada.client.get("/docs"),
            await ada.client.get("/openapi.json"),
            await ada.client.get("/static-offline-docs/swagger-ui.css"),
            await ada.client.head("/redoc"),
            await ada.client.get("/nowhere"),
        ]
    assert [reply.status_code for reply in replies] == [400, 413, 413, 404, 405, 405, 405, 404, 200, 200, 200, 200, 429]
    assert [reply.headers["RateLimit"].split(";")[1] for reply in replies] == [
        f"r={n}" for n in (*range(11, -1, -1), 0)
    ]
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"requests";q=12;w=60'}


async def chunks(size: int) -> AsyncIterator[bytes]:
    """A body whose length is not said."""
    for _ in range(0, size, 100_000):
        yield b" " * 100_000


async def test_a_refused_body_is_not_read(database_url: str) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{}"

    async with limited(database_url, per_minute=1) as app, browser(app) as client:
        assert [(await client.post("/tasks", content=body())).status_code for _ in range(3)] == [415, 429, 429]
    assert len(read) <= 1


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register"])
async def test_an_unreadable_log_in_counts_as_a_log_in(database_url: str, path: str) -> None:
    async with limited(database_url, per_minute=1, logins_limit=5) as app, browser(app) as client:
        json = {"Content-Type": "application/json"}
        replies = [
            await client.post(path, content=b"{", headers=json),
            await client.post(path, content=b"x", headers={"Content-Type": "text/plain"}),
            await client.post(path, json={"username": 1}),
            await client.post(f"{path}?x=1", json={"username": "ada", "password": PASSWORD}),
            await client.post(path, content=b" " * (MAX_BODY_BYTES + 1), headers=json),
            await client.post(path, content=b"{", headers=json),
        ]
    assert [reply.status_code for reply in replies] == [400, 415, 422, 422, 413, 429]
    assert [reply.headers["RateLimit"].split(";")[1] for reply in replies] == [f"r={n}" for n in (4, 3, 2, 1, 0, 0)]
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"log-ins";q=5;w=60'}


async def test_log_ins_without_a_limit_of_their_own_count_as_requests(database_url: str) -> None:
    async with limited(database_url, per_minute=2) as app, browser(app) as client:
        seen = [(await client.post("/auth/login", json={"username": "a", "password": "b"})) for _ in range(3)]
    assert [one.status_code for one in seen] == [401, 401, 429]


async def test_a_refusal_has_what_every_reply_has(database_url: str) -> None:
    origin = {"Origin": "https://app.example"}
    preflight = origin | {"Access-Control-Request-Method": "GET"}
    async with limited(database_url, per_minute=1, logins_limit=1, cors_origins=origin["Origin"]) as app:
        client = browser(app)
        assert (await client.get("/tasks", headers=origin)).status_code == 401
        assert (await client.post("/auth/login", headers=origin)).status_code == 415
        for refused in [
            await client.get("/tasks", headers=origin),
            await client.get("/nowhere", headers=origin),
            await client.post("/auth/login", content=b"{", headers=origin),
        ]:
            assert problem(refused, 429)["code"] == "rate_limited"
            assert refused.headers["Retry-After"] == "60"
            assert refused.headers["Access-Control-Allow-Origin"] == origin["Origin"]
            assert "RateLimit" in refused.headers["Access-Control-Expose-Headers"]
            assert refused.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in refused.headers["Content-Security-Policy"]
            assert "total;dur=" in refused.headers["Server-Timing"]
        # A browser would take a 429 here for no permission, for all who share the address.
        assert (await client.options("/tasks", headers=preflight)).status_code == 200


@pytest.mark.parametrize("per_minute", [0, 100])
async def test_a_token_is_verified_once(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch, per_minute: int
) -> None:
    verified = []
    verify = Tokens.verify

    def counted(self: Tokens, token: str) -> Viewer:
        verified.append(token)
        return verify(self, token)

    monkeypatch.setattr(Tokens, "verify", counted)
    async with limited(database_url, per_minute=per_minute) as app:
        ada = await Factory(sql, app).user()
        for path in ("/auth/me", "/tasks", "/analytics"):
            assert (await ada.client.get(path)).status_code == 200
        assert verified == [ada.token] * 3


async def test_the_database_is_not_asked_about_keys_from_an_address_that_has_guessed_enough(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with limited(database_url, per_minute=3) as app:
        ada = await Factory(sql, app).user()
        made = [(await ada.client.post("/auth/keys", json={"name": "robot"})).json()["key"] for _ in range(2)]
        async with browser(app) as client:
            valid, new, *guessed = (
                {"Authorization": f"Bearer {key}"} for key in [*made, *(f"tm_{n}" for n in range(4))]
            )
            while not app.state.services.session_cache.is_current():  # noqa: ASYNC110
                await anyio.sleep(0.01)
            assert await statuses(client, valid, *guessed) == [200, 401, 401, 401, 429]
            problem(await client.get("/tasks", headers=new), 429)  # good, which only the database could say
            assert not app.state.services.session_cache.is_uncached_key(made[0])


async def test_health_and_metrics_routes_are_not_limited(database_url: str) -> None:
    async with limited(database_url, per_minute=1, logins_limit=1) as app, browser(app) as client:
        for path in ("/healthz", "/readyz", "/metrics") * 3:
            for method in ("GET", "HEAD", "POST"):
                reply = await client.request(method, path)
                assert reply.status_code in {200, 503, 404, 405}  # 503: not ready yet
                assert not {"ratelimit", "ratelimit-policy"} & reply.headers.keys()


async def test_zero_switches_a_limit_off(database_url: str, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    async with limited(database_url) as app:
        ada = await Factory(sql, app).user()
        for reply in [await ada.client.get("/tasks") for _ in range(150)] + [await log_in(browser(app), ada)]:
            assert reply.status_code == 200
            assert not {"ratelimit", "ratelimit-policy"} & reply.headers.keys()


async def log_in(client: httpx.AsyncClient, user: User, *, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/auth/login", json={"username": user.username, "password": password})


async def test_log_ins_and_registrations_share_the_budget_of_the_address(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with limited(database_url, per_minute=1, logins_limit=4) as app:
        one, other = await Factory(sql, app).user(), await Factory(sql, app).user()
        here, elsewhere = browser(app), browser(app, peer="198.51.100.1")
        new = {"username": "newcomer", "password": PASSWORD}
        assert (await log_in(here, one)).status_code == 200
        assert (await log_in(here, other, password="wrong")).status_code == 401
        assert (await here.post("/auth/register", json=new)).status_code == 201
        assert (await here.post("/auth/register", json=new)).status_code == 409
        assert (await here.post("/auth/register", json=new)).status_code == 429
        refused = await log_in(here, one)
        assert problem(refused, 429)["code"] == "rate_limited"
        assert refused.headers["RateLimit-Policy"] == '"log-ins";q=4;w=60'
        headers = (await log_in(elsewhere, other)).headers
        assert headers["RateLimit-Policy"] == '"log-ins";q=4;w=60, "account";q=40;w=60'
        assert headers["RateLimit"] == '"log-ins";r=3;t=15, "account";r=38;t=3'


@pytest.mark.parametrize("where", ["redis", "process"])
async def test_guessing_from_many_addresses_is_limited_for_each_account(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record], redis_url: str, where: str
) -> None:
    await emptied(redis_url)
    async with limited(database_url, logins_limit=3, redis_url=redis_url if where == "redis" else "") as app:
        ada, bob = await Factory(sql, app).user(username="Ada"), await Factory(sql, app).user()
        ada_elsewhere = User(ada.id, "aDA", ada.token, ada.client, ada.viewer)
        seen = [
            (await log_in(browser(app, peer=f"198.51.100.{n}"), who, password="guess")).status_code
            for n, who in enumerate([ada, ada_elsewhere] * 16)
        ]
        assert seen == [401] * 30 + [429] * 2
        assert (await log_in(browser(app), ada)).status_code == 429
        assert (await log_in(browser(app), bob)).status_code == 200


@pytest.mark.parametrize("where", ["redis", "process"])
async def test_guessing_from_one_address_does_not_lock_the_owner_out_anywhere_else(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record], redis_url: str, where: str, clock: Clock
) -> None:
    await emptied(redis_url)
    async with limited(database_url, logins_limit=5, redis_url=redis_url if where == "redis" else "") as app:
        ada = await Factory(sql, app).user()
        guesser = browser(app, peer="198.51.100.1")
        for minute in range(5):
            seen = [(await log_in(guesser, ada, password="guess")).status_code for _ in range(8)]
            assert seen == [401] * 5 + [429] * 3
            assert (await log_in(browser(app, peer=f"203.0.113.{minute}"), ada)).status_code == 200
            clock.pass_by(60_001)


async def emptied(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()


@pytest.mark.parametrize("where", ["redis", "process"])
async def test_guessing_does_not_lock_the_owner_out_where_they_logged_in_before(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record], redis_url: str, where: str
) -> None:
    await emptied(redis_url)
    url = redis_url if where == "redis" else ""
    async with (
        limited(database_url, logins_limit=3, redis_url=url) as app,
        limited(database_url, logins_limit=3, redis_url=url) as replica,
    ):
        ada = await Factory(sql, app).user()
        home = "203.0.113.5"
        assert (await log_in(browser(app, peer=home), ada)).status_code == 200
        for n in range(40):
            await log_in(browser(app, peer=f"198.51.100.{n}"), ada, password="guess")
        assert (await log_in(browser(app, peer="198.51.100.99"), ada)).status_code == 429
        assert (await log_in(browser(app if where == "process" else replica, peer=home), ada)).status_code == 200


async def test_a_name_that_imitates_the_owners_address_does_not_lock_the_owner_out(
    database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with limited(database_url, logins_limit=3) as app:
        ada = await Factory(sql, app).user(username="ada")
        home = "203.0.113.5"
        assert (await log_in(browser(app, peer=home), ada)).status_code == 200
        for n, name in enumerate([f"ada {home}", f"{home} ada", f"known:{home} ada", f"known:ada {home}"] * 8):
            forged = User(0, name, "", ada.client, ada.viewer)
            assert (await log_in(browser(app, peer=f"198.51.100.{n}"), forged)).status_code in {401, 429}
        assert (await log_in(browser(app, peer=home), ada)).status_code == 200


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "198.51.100.1"])
async def test_a_forged_address_changes_nothing(database_url: str, peer: str) -> None:
    async with limited(database_url, per_minute=3) as app:
        forged = [{"X-Forwarded-For": f"203.0.113.{n}", "X-Real-IP": f"203.0.113.{n}"} for n in range(5)]
        assert await statuses(browser(app, peer=peer), *forged) == [401, 401, 401, 429, 429]


async def test_clients_of_a_trusted_proxy_are_distinguished_and_cannot_forge_addresses(database_url: str) -> None:
    async with limited(database_url, per_minute=2, trusted_proxies=PROXIES) as app:
        proxy = browser(app, peer="10.1.2.3")
        same = [forwarded(f"192.168.0.{n}, 203.0.113.5") for n in range(3)]
        assert await statuses(proxy, *same) == [401, 401, 429]
        lines = [forwarded(f"192.168.0.{n}", "203.0.113.6", "192.0.2.7") for n in range(3)]
        assert await statuses(proxy, *lines) == [401, 401, 429]
        assert await statuses(browser(app, peer="203.0.113.6"), {}) == [429]


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("127.0.0.1", ["198.51.100.1"], "127.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["  198.51.100.1 ,\t10.9.9.9 ,192.0.2.7  "], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1", "10.0.0.2", "192.0.2.7"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, ,", ""], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4455"], "198.51.100.1"),
        ("10.0.0.1", ['"[2001:db8:1:2::9]:44"', "[fd00::1]"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "unknown"),
        ("10.0.0.1", ["nonsense, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["nonsense, 10.0.0.2"], "unknown"),
        ("10.0.0.1", ["198.51.100.1\x00"], "unknown"),
        ("10.0.0.1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:DB8:1:2::9, fd00::1"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1, ::ffff:10.0.0.2"], "198.51.100.1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
        ("fe80::1%eth0", ["198.51.100.1"], "fe80::/64"),
        ("2001:db8::1", ["198.51.100.1"], "2001:db8::/64"),
        (None, ["198.51.100.1"], "unknown"),
        ("", ["198.51.100.1"], "unknown"),
    ],
)
def test_the_address_is_the_last_one_that_no_trusted_proxy_has(
    peer: str | None, lines: list[str], address: str
) -> None:
    trusted = tuple(ip_network(one.strip()) for one in PROXIES.split(","))
    assert client_address(peer, lines, trusted) == address


@pytest.mark.parametrize("peer", [None, ""])
async def test_clients_without_an_address_share_one_budget(database_url: str, peer: str | None) -> None:
    async with limited(database_url, per_minute=2) as app:
        assert await statuses(browser(app, peer=peer), {}, {}, {}) == [401, 401, 429]


async def test_head_responses_have_the_rate_limit_headers(database_url: str) -> None:
    async with limited(database_url, per_minute=3) as app:
        assert "r=2" in (await browser(app).head("/tasks")).headers["RateLimit"]
