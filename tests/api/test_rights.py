"""Who may do what: every route of the OpenAPI document, asked by everyone there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.api.connection_limits import ConnectionLimits
from service.api.protocols import protocols
from tests.support.factories import PASSWORD, Factory, User
from tests.support.problems import OPERATIONS, Operation, problem

WHO = ("anonymous", "other", "owner", "administrator", "read-only key", "full key")
# What is answered to each of them; the keys are the owner's.
MAY: dict[str, tuple[int, int, int, int, int, int]] = {
    "POST /auth/register": (201, 201, 201, 201, 403, 201),
    "POST /auth/login": (200, 200, 200, 200, 200, 200),
    "POST /auth/refresh": (200, 200, 200, 200, 200, 200),
    "POST /auth/logout": (401, 204, 204, 204, 403, 404),
    "GET /auth/me": (401, 200, 200, 200, 200, 200),
    "PUT /auth/password": (401, 204, 204, 204, 403, 204),
    "GET /auth/sessions": (401, 200, 200, 200, 200, 200),
    "DELETE /auth/sessions/{session_id}": (401, 404, 204, 404, 403, 204),
    "POST /auth/keys": (401, 201, 201, 201, 403, 403),
    "GET /auth/keys": (401, 200, 200, 200, 200, 200),
    "DELETE /auth/keys/{key_id}": (401, 404, 204, 404, 403, 204),
    "POST /auth/ticket": (401, 200, 200, 200, 200, 200),
    "GET /users": (401, 403, 403, 200, 403, 403),
    "GET /users/{user_id}": (401, 403, 403, 200, 403, 403),
    "PATCH /users/{user_id}": (401, 403, 403, 200, 403, 403),
    "POST /tasks": (401, 201, 201, 201, 403, 201),
    "GET /tasks": (401, 200, 200, 200, 200, 200),
    "GET /tasks/export": (401, 200, 200, 200, 200, 200),
    "GET /tasks/{task_id}": (401, 403, 200, 200, 200, 200),
    "PUT /tasks/{task_id}": (401, 403, 200, 200, 403, 200),
    "PATCH /tasks/{task_id}": (401, 403, 200, 200, 403, 200),
    "DELETE /tasks/{task_id}": (401, 403, 204, 204, 403, 204),
    "POST /tasks/bulk": (401, 201, 201, 201, 403, 201),
    "GET /tasks/{task_id}/history": (401, 403, 200, 200, 200, 200),
    "POST /tasks/{task_id}/restore": (401, 403, 200, 200, 403, 200),
    "POST /tasks/{task_id}/attachments": (401, 403, 201, 201, 403, 201),
    "GET /tasks/{task_id}/attachments": (401, 403, 200, 200, 200, 200),
    "GET /tasks/{task_id}/attachments/{attachment_id}": (401, 403, 200, 200, 200, 200),
    "DELETE /tasks/{task_id}/attachments/{attachment_id}": (401, 403, 204, 204, 403, 204),
    "GET /events": (401, 200, 200, 200, 200, 200),
    "GET /ws": (4401, 0, 1, 1, 1, 1),  # closed with; or how many of the owner's events are heard
    "GET /analytics": (401, 200, 200, 200, 200, 200),
    "GET /analytics/timeseries": (401, 200, 200, 200, 200, 200),
    "GET /": (200, 200, 200, 200, 200, 200),
    "GET /healthz": (200, 200, 200, 200, 200, 200),
    "GET /readyz": (200, 200, 200, 200, 200, 200),
    "GET /metrics": (200, 200, 200, 200, 200, 200),
    "GET /admin/queries": (401, 403, 403, 200, 403, 403),
    "GET /admin/queries/{name}/plan": (401, 403, 403, 200, 403, 403),
}
# Lists and figures are everyone's, and hold what each may see: how many of the owner's one task or event.
SEEN = {"GET /tasks": (0, 1, 1, 1, 1), "GET /events": (0, 1, 1, 1, 1), "GET /analytics": (0, 1, 1, 1, 1)}
Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class World:
    """An owner of a task, a session and two keys, and those who are not the owner."""

    def __init__(self, make: Factory, owner: User, other: User, admin: User) -> None:
        self.make, self.owner, self.other, self.admin = make, owner, other, admin
        self.tokens: dict[str, str] = {}
        self.ids: dict[str, Any] = {}
        self.refresh_token = ""
        self.since = ""

    async def fill(self) -> None:
        client = self.owner.client
        credentials = {"username": self.owner.username, "password": PASSWORD}
        self.refresh_token = (await client.post("/auth/login", json=credentials)).json()["refresh_token"]
        read, full, spare = [
            (await client.post("/auth/keys", json={"name": "x", "read_only": n == 0})).json() for n in range(3)
        ]
        keys = ("", self.other.token, self.owner.token, self.admin.token, read["key"], full["key"])
        self.tokens = dict(zip(WHO, keys, strict=True))
        self.ids = {
            "user_id": self.owner.id,
            "key_id": spare["id"],
            "session_id": await self.make.session(self.owner.id),
            "name": "tasks.get",
            "task_id": (await client.post("/tasks", json={"title": "x"})).json()["id"],
        }
        self.since = (await client.get("/events")).json()["cursor"]
        upload = await client.post(f"/tasks/{self.ids['task_id']}/attachments", files={"file": b"x"})
        self.ids["attachment_id"] = upload.json()["id"]

    def body(self, operation: Operation) -> Any:
        bodies: dict[str, Any] = {
            "/auth/register": {"username": "somebody", "password": PASSWORD},
            "/auth/login": {"username": self.owner.username, "password": PASSWORD},
            "/auth/refresh": {"refresh_token": self.refresh_token},
            "/auth/password": {"current_password": PASSWORD, "new_password": PASSWORD},
            "/auth/keys": {"name": "x"},
            "/users/{user_id}": {"role": "user"},
            "/tasks": {"title": "x"},
            "/tasks/bulk": {"tasks": [{"title": "x"}]},
            "/tasks/{task_id}": {"title": "y"},
        }
        return bodies[operation.template] if operation.fields else None


@pytest.fixture
async def world(make: Factory) -> World:
    world = World(make, await make.user(), await make.user(), await make.admin())
    await world.fill()
    return world


@pytest.fixture
async def port(make: Factory) -> AsyncIterator[int]:
    """The application on a port, as it is served."""
    http, ws = protocols(ConnectionLimits(1000, trusted=()))
    config = uvicorn.Config(make.app, port=0, http=http, ws=ws, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await serving


async def rows(sql: Sql) -> list[dict[str, Any]]:
    """Return every row that a refused request must not change; a key's last use is noted beside the request."""
    tables = ("tasks", "attachments", "sessions", "api_keys", "users")
    found = [dict(row) for table in tables for row in await sql.fetch(f"select * from {table} order by id")]
    return [{name: value for name, value in row.items() if name != "last_used_at"} for row in found]


def test_every_route_has_a_line() -> None:
    assert {str(operation) for operation in OPERATIONS} == MAY.keys()


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.template != "/ws"], ids=str)
async def test_every_role_has_the_rights_of_the_table(
    world: World, client: httpx.AsyncClient, sql: Sql, operation: Operation, who: str
) -> None:
    if operation.template.endswith("/restore"):
        await sql.execute("delete from tasks")
    before = await rows(sql)
    if world.tokens[who]:
        client.headers["Authorization"] = f"Bearer {world.tokens[who]}"
    path = operation.template.format(**world.ids)
    more = {"/events": f"?since={world.since}", "/analytics/timeseries": "?bucket=day", "/tasks/export": "?format=csv"}
    path += more.get(path, "")
    files = {"file": b"x"} if operation.takes_file else None
    answer = await client.request(operation.method, path, json=world.body(operation), files=files)
    expected = MAY[str(operation)][WHO.index(who)]
    assert str(expected) in operation.spec["responses"]
    if expected < 400:
        assert answer.status_code == expected, answer.text
    else:
        problem(answer, expected)
        assert await rows(sql) == before
    if who != "anonymous" and str(operation) in SEEN:
        assert seen(answer.json()) == SEEN[str(operation)][WHO.index(who) - 1]


def seen(body: dict[str, Any]) -> int:
    return len(body["items"]) if "items" in body else sum(body["by_status"].values())


@pytest.mark.parametrize("who", WHO)
async def test_every_role_gets_the_events_of_the_table(world: World, port: int, who: str) -> None:
    expected = MAY["GET /ws"][WHO.index(who)]
    headers = {"Authorization": f"Bearer {world.tokens[who] or 'none'}"}
    async with asyncio.timeout(20), connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, proxy=None) as ws:
        if expected == 4401:
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 4401
            return
        assert '"ready"' in str(await ws.recv())
        await world.make.task(world.owner, title="the owner's")
        await world.make.task(world.other, title="the other's")
        heard = [str(await ws.recv())]
        if who == "administrator":
            heard.append(str(await ws.recv()))
        assert sum("the owner's" in one for one in heard) == expected
        assert sum("the other's" in one for one in heard) == (who in {"other", "administrator"})
