"""The WebSocket: who may listen, from where on, what is sent, and why it ends."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from fastapi import FastAPI
from loguru import logger
from websockets.exceptions import InvalidStatus

from service.accounts.passwords import Passwords
from service.accounts.tokens import ALGORITHM
from service.api import connection
from service.api.streaming import websocket
from service.app import create_app
from service.events.subscriber import Subscriber
from tests.conftest import SECRET_KEY, make_settings
from tests.realtime.conftest import ORIGIN
from tests.support.factories import Factory, User
from tests.support.gates import gate
from tests.support.problems import problem
from tests.support.raw import dial
from tests.support.sockets import served
from tests.support.subscribers import WAIT_SECONDS, closed, dialled, listening, say, told

TEXT, CLOSE = 0x1, 0x8  # opcodes of frames


def token_until(user: User, expires_at: float) -> str:
    """Return the user's token with another expiry."""
    header = jwt.get_unverified_header(user.token)
    claims = jwt.decode(user.token, options={"verify_signature": False})
    return jwt.encode(claims | {"exp": math.ceil(expires_at)}, SECRET_KEY, ALGORITHM, headers=header)


async def ticket(address: str, user: User) -> str:
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        answer = await client.post("/auth/ticket", headers={"Authorization": f"Bearer {user.token}"})
    assert answer.json()["expires_in"] == 30
    return str(answer.json()["ticket"])


async def hears(socket: Any, make: Factory, user: User) -> None:
    """Hold that the socket is live, and hears of its user's next task."""
    assert (await told(socket))["type"] == "ready"
    task = await make.task(user)
    event = await told(socket)
    assert (event["type"], event["task_id"], event["user_id"]) == ("task.created", task, user.id)


async def test_a_token_in_the_header(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address, token=ada.token) as socket:
        assert socket.subprotocol is None
        await hears(socket, make, ada)


@pytest.mark.parametrize("turned", [False, True])
async def test_a_token_among_the_subprotocols(address: str, make: Factory, turned: bool) -> None:
    ada = await make.user()
    offered = ("bearer", ada.token)
    async with dialled(address, protocols=offered[::-1] if turned else offered) as socket:
        assert socket.subprotocol == "bearer"
        await hears(socket, make, ada)


async def test_a_token_in_the_first_message(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address) as socket:
        await say(socket, type="auth", token=ada.token)
        await hears(socket, make, ada)


async def test_a_ticket_works_once(address: str, make: Factory) -> None:
    ada = await make.user()
    issued = await ticket(address, ada)
    async with dialled(address, ticket=issued) as socket:
        await hears(socket, make, ada)
    async with dialled(address, ticket=issued) as socket:
        assert await closed(socket) == 4401


async def test_an_expired_ticket_is_refused(address: str, make: Factory) -> None:
    issued = await ticket(address, await make.user())
    await make.sql.execute("update tickets set expires_at = now()")
    async with dialled(address, ticket=issued) as socket:
        assert await closed(socket) == 4401


@pytest.mark.parametrize("how", ["header", "protocols", "message", "ticket", "no bearer"])
async def test_a_bad_token_is_refused_whichever_way_it_comes(address: str, make: Factory, how: str) -> None:
    bad = (await make.user()).token[:-2]
    ways: dict[str, dict[str, Any]] = {
        "header": {"token": bad},
        "protocols": {"protocols": ("bearer", bad)},
        "ticket": {"ticket": bad},
        "no bearer": {"protocols": ("bearer",)},
        "message": {},
    }
    async with dialled(address, **ways[how]) as socket:
        if how == "message":
            await say(socket, type="auth", token=bad)
        assert await closed(socket) == 4401


@pytest.mark.parametrize("first", ["hello", "{}", '{"type": "subscribe"}', '{"type": "auth"}', b"{}", None])
async def test_a_socket_that_does_not_authenticate_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch, first: str | bytes | None
) -> None:
    monkeypatch.setattr(websocket, "AUTH_TIMEOUT_SECONDS", 0.1 if first is None else WAIT_SECONDS)
    async with dialled(address) as socket:
        if first is not None:
            await socket.send(first)
        assert await closed(socket) == 4401


async def test_an_expired_token_and_a_deleted_account_are_refused(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address, token=token_until(ada, time.time() - 60)) as socket:
        assert await closed(socket) == 4401
    await make.sql.execute("delete from users where id = $1", ada.id)
    async with dialled(address, token=ada.token) as socket:
        assert await closed(socket) == 4401


async def test_the_end_of_the_token_ends_the_connection(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address, token=token_until(ada, time.time() + 2)) as socket:
        assert (await told(socket))["type"] == "ready"
        assert await closed(socket) == 4401


async def test_a_new_token_keeps_the_connection_open(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address, token=token_until(ada, time.time() + 2)) as socket:
        assert (await told(socket))["type"] == "ready"
        await say(socket, type="auth", token=token_until(ada, time.time() + 4))
        assert await told(socket) == {"type": "authenticated"}
        begun = time.time()
        assert await closed(socket) == 4401
        assert time.time() - begun > 1.5


@pytest.mark.parametrize("whose", ["another's", "nobody's"])
async def test_another_accounts_token_ends_the_connection(address: str, make: Factory, whose: str) -> None:
    ada, bob = await make.user(), await make.user()
    async with listening(address, ada) as socket:
        await say(socket, type="auth", token=bob.token if whose == "another's" else "x")
        assert await closed(socket) == 4401


@pytest.mark.parametrize("change", ["update users set role = 'admin' where id = $1", "delete from users where id = $1"])
async def test_another_role_or_the_accounts_end_ends_the_connection(address: str, make: Factory, change: str) -> None:
    ada, bob = await make.user(), await make.user()
    async with listening(address, ada) as socket, listening(address, bob) as others:
        await make.sql.execute(change, ada.id)
        assert await closed(socket) == 4403
        task = await make.task(bob)
        assert (await told(others))["task_id"] == task


async def test_the_first_frames_cursor_is_the_position_before_the_next(address: str, make: Factory) -> None:
    ada = await make.user()
    async with dialled(address, token=ada.token) as socket:
        ready = await told(socket)
        tasks = [await make.task(ada) for _ in range(3)]
        events = [await told(socket) for _ in range(3)]
    assert [one["task_id"] for one in events] == tasks
    for number, cursor in enumerate([ready["cursor"], *(one["cursor"] for one in events)]):
        async with dialled(address, token=ada.token, since=cursor) as socket:
            assert await told(socket) == {"type": "ready", "cursor": cursor}
            for one in events[number:]:
                assert without_cursor(await told(socket)) == without_cursor(one)
            last = await make.task(ada)
            assert (await told(socket))["task_id"] == last
            tasks.append(last)
            events.append(await last_event(make, ada, events[-1]["cursor"]))


def without_cursor(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "cursor"}


async def last_event(make: Factory, user: User, since: str) -> dict[str, Any]:
    page = (await user.client.get("/events", params={"since": since})).json()
    (event,) = page["items"]
    return dict(event)


async def test_since_may_come_in_the_first_message(address: str, make: Factory) -> None:
    ada = await make.user()
    cursor = (await ada.client.get("/events")).json()["cursor"]
    task = await make.task(ada)
    async with dialled(address) as socket:
        await say(socket, type="auth", token=ada.token, since=cursor)
        assert await told(socket) == {"type": "ready", "cursor": cursor}
        assert (await told(socket))["task_id"] == task


@pytest.mark.parametrize("since", ["garbage", "", "x" * 4000])
async def test_an_invalid_cursor_is_answered_with_reset(address: str, make: Factory, since: str) -> None:
    ada = await make.user()
    await make.task(ada)
    async with dialled(address, token=ada.token, since=since) as socket:
        reset = await told(socket)
        assert reset.keys() == {"type", "cursor"}
        assert reset["type"] == "reset"
        task = await make.task(ada)
        assert (await told(socket))["task_id"] == task
    async with dialled(address, token=ada.token, since=reset["cursor"]) as socket:
        assert (await told(socket))["type"] == "ready"
        assert (await told(socket))["task_id"] == task


async def test_an_event_is_the_same_on_every_way(address: str, make: Factory) -> None:
    ada = await make.user()
    cursor = (await ada.client.get("/events")).json()["cursor"]
    async with listening(address, ada) as socket:
        made = (await ada.client.post("/tasks", json={"title": "x", "description": "\N{GRINNING FACE}" * 50})).json()
        await ada.client.patch(f"/tasks/{made['id']}", json={"status": "done"})
        events = [await told(socket) for _ in range(2)]
    page = (await ada.client.get("/events", params={"since": cursor})).json()
    assert [without_cursor(one) for one in page["items"]] == [without_cursor(one) for one in events]
    created, updated = events
    assert created.keys() == {"id", "cursor", "type", "task_id", "user_id", "actor_id", "at", "task"}
    assert updated.keys() == created.keys() | {"changes"}
    assert (updated["type"], updated["changes"], updated["actor_id"]) == (
        "task.updated",
        {"status": ["todo", "done"]},
        ada.id,
    )
    assert updated["at"].endswith("Z")
    assert updated["task"]["description"] == made["description"]


async def test_a_user_never_gets_anothers_events(address: str, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    async with (
        listening(address, ada) as at_adas,
        listening(address, bob) as at_bobs,
        listening(address, root) as at_roots,
    ):
        bobs = await make.task(bob)
        adas = await make.task(ada)
        assert (await told(at_adas))["task_id"] == adas
        assert (await told(at_bobs))["task_id"] == bobs
        assert [(await told(at_roots))["task_id"] for _ in range(2)] == [bobs, adas]
        await make.sql.execute("update tasks set user_id = $1 where id = $2", bob.id, adas)  # reaches both
        await make.sql.execute("update tasks set title = 'none of hers now' where id = $1", adas)
        last = await make.task(ada)
        moved = [await told(at) for at in (at_adas, at_bobs)]
        assert [(one["task_id"], one["changes"]) for one in moved] == [(adas, {"user_id": [ada.id, bob.id]})] * 2
        assert (await told(at_adas))["task_id"] == last
        assert (await told(at_bobs))["task"]["title"] == "none of hers now"
        assert [(await told(at_roots))["task_id"] for _ in range(3)] == [adas, adas, last]


async def test_an_administrator_narrows_what_is_sent(address: str, make: Factory) -> None:
    ada, bob, root = await make.user(), await make.user(), await make.admin()
    async with listening(address, root) as socket:
        await say(socket, type="subscribe", user_id=ada.id, status=["done"])
        assert await told(socket) == {"type": "subscribed", "user_id": ada.id, "status": ["done"]}
        await make.task(bob, status="done")
        task = await make.task(ada)
        await make.task(ada, status="in_progress")
        await make.sql.execute("update tasks set status = 'done' where id = $1", task)
        await make.sql.execute("update tasks set status = 'todo' where id = $1", task)
        await make.sql.execute("update tasks set title = 'unheard' where id = $1", task)
        await make.task(ada, status="done")
        heard = [await told(socket) for _ in range(3)]
        assert [one.get("changes") for one in heard] == [
            {"status": ["todo", "done"]},
            {"status": ["done", "todo"]},
            None,
        ]
        await say(socket, type="subscribe")
        assert await told(socket) == {"type": "subscribed", "user_id": None, "status": None}
        last = await make.task(bob)
        assert (await told(socket))["task_id"] == last


async def test_a_user_may_narrow_to_own_events_alone(address: str, make: Factory) -> None:
    ada, bob = await make.user(), await make.user()
    async with listening(address, ada) as socket:
        await say(socket, type="subscribe", user_id=bob.id)
        refused = await told(socket)
        assert (refused["type"], refused["code"]) == ("error", "forbidden")
        await say(socket, type="subscribe", user_id=ada.id, status=["todo", "done"])
        assert (await told(socket))["type"] == "subscribed"
        await make.task(bob)
        task = await make.task(ada)
        assert (await told(socket))["task_id"] == task


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "[]",
        "null",
        "{}",
        '{"type": "publish"}',
        '{"type": "subscribe", "status": "done"}',
        '{"type": "subscribe", "status": ["later"]}',
        '{"type": "subscribe", "user_id": 0}',
        '{"type": "subscribe", "user_id": 1.5}',
        '{"type": "subscribe", "more": 1}',
        '{"type": "auth"}',
        "[" * 10_000,
        b"\x00\xff",
    ],
)
async def test_an_invalid_message_is_reported_and_keeps_the_connection(
    address: str, make: Factory, message: str | bytes
) -> None:
    ada = await make.user()
    async with listening(address, ada) as socket:
        await socket.send(message)
        error = await told(socket)
        assert (error["type"], error["code"]) == ("error", "invalid")
        assert error["detail"]
        task = await make.task(ada)
        assert (await told(socket))["task_id"] == task


async def test_too_many_messages_end_the_connection(address: str, make: Factory) -> None:
    async with listening(address, await make.user()) as socket:
        for _ in range(websocket.MAX_MESSAGES + 1):
            await say(socket, type="subscribe")
        assert await closed(socket) == 1008


async def test_a_message_may_not_be_too_large(address: str, make: Factory) -> None:
    ada = await make.user()
    async with listening(address, ada) as socket:
        await socket.send("x" * 64 * 1024)
        assert (await told(socket))["code"] == "invalid"
        await socket.send("x" * (64 * 1024 + 1))
        assert await closed(socket) == 1009


@pytest.mark.parametrize("origin", ["https://foe.example", "null", "http://127.0.0.1:1", ORIGIN + ".foe.example"])
async def test_a_foreign_origin_is_refused(address: str, make: Factory, origin: str) -> None:
    ada = await make.user()
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(address, token=ada.token, origin=origin):
            pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["Content-Type"] == "application/problem+json"


async def test_the_own_and_an_allowed_origin_are_accepted(address: str, make: Factory) -> None:
    ada = await make.user()
    for origin in (f"http://{address}", ORIGIN):
        async with dialled(address, token=ada.token, origin=origin) as socket:
            assert (await told(socket))["type"] == "ready"


async def test_an_unknown_parameter_is_refused(address: str, make: Factory) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dialled(address, token=(await make.user()).token, token_="x"):
            pass
    assert refused.value.response.status_code == 422


async def test_a_handshake_names_no_server(address: str, make: Factory) -> None:
    async with dialled(address, token=(await make.user()).token) as socket:
        assert socket.response
        assert "Server" not in socket.response.headers
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_a_plain_request_gets_426(make: Factory, live_app: FastAPI) -> None:
    ada = await make.user()
    answer = await ada.client.get("/ws")
    assert problem(answer, 426)["code"] == "upgrade_required"
    assert answer.headers["Upgrade"] == "websocket"


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All that is logged."""
    heard: list[str] = []
    sink = logger.add(heard.append, level=0, format="{message} {extra}")
    yield heard
    logger.remove(sink)


async def test_neither_a_token_nor_a_query_is_logged(
    address: str, make: Factory, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    ada = await make.user()
    issued = await ticket(address, ada)
    async with dialled(address, ticket=issued, since="Atlantis") as socket:
        assert (await told(socket))["type"] == "reset"
        await say(socket, type="auth", token=ada.token)
        assert (await told(socket))["type"] == "authenticated"
    async with dialled(address, protocols=("bearer", ada.token + "x")) as socket:
        assert await closed(socket) == 4401
    with pytest.raises(InvalidStatus):
        async with dialled(address, token=ada.token, origin="https://foe.example", since="Atlantis"):
            pass
    # What the client under test's own library says is its own matter.
    log_text = "\n".join([*log, *(one.getMessage() for one in caplog.records if not one.name.startswith("websockets"))])
    assert "subscriber connected" in log_text
    for secret in (issued, ada.token, "Atlantis"):
        assert secret not in log_text


async def test_a_subscriber_that_stops_reading_gets_a_close_frame_after_its_events(
    address: str,
    make: Factory,
    live_app: FastAPI,
    sql: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MAX_STALL_SECONDS", 0.3)
    monkeypatch.setattr(connection, "POLL_INTERVAL_SECONDS", 0.05)
    ada = await make.user()
    raw, _ = await dial(f"http://{address}", {"Authorization": f"Bearer {ada.token}"})
    await sql.execute(
        "insert into tasks (user_id, title, description)"
        " select $1, 'x', repeat('x', 10000) from generate_series(1, 1000)",
        ada.id,
    )
    frames: list[tuple[int, bytes]] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while any(one.viewer.id == ada.id for one in live_app.state.services.hub.subscribers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        while not frames or frames[-1][0] == TEXT:
            assert await raw.read()
            frames += raw.frames()
    raw.socket.close()
    assert 0 < len(frames) - 1 < 1000
    assert (frames[-1][0], int.from_bytes(frames[-1][1][:2], "big")) == (CLOSE, 4408)


async def test_a_disconnected_subscriber_is_removed(address: str, make: Factory, live_app: FastAPI) -> None:
    hub, ada = live_app.state.services.hub, await make.user()

    def mine() -> list[Subscriber]:
        return [one for one in hub.subscribers if one.viewer.id == ada.id]

    async with listening(address, ada), listening(address, ada):
        assert len(mine()) == 2
    async with asyncio.timeout(WAIT_SECONDS):
        while mine():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert ada.id not in hub._live_owners


async def test_a_subscriber_before_the_listener_connects_misses_nothing(make: Factory, live_database_url: str) -> None:
    ada = await make.user()
    async with gate(live_database_url) as door:
        await door.shut("refused")
        app = create_app(make_settings(live_database_url, database_listen_url=door.url), passwords=Passwords(cost=4))
        async with app.router.lifespan_context(app), served(app) as address, listening(address, ada) as socket:
            async with asyncio.timeout(WAIT_SECONDS):
                while app.state.services.hub.position is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            tasks = [await make.task(ada)]
            await door.open()
            assert (await told(socket))["task_id"] == tasks[0]
            tasks.append(await make.task(ada))
            assert (await told(socket))["task_id"] == tasks[1]
