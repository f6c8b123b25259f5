"""The one timer of a process that polls connections and pings WebSockets."""

from __future__ import annotations

import asyncio

import pytest

from service.api import connection, websocket_protocol
from service.api.connection import ConnectionPoller
from tests.support.factories import Factory
from tests.support.raw import dial
from tests.support.subscribers import WAIT_SECONDS, listening, told

CLOSE, PING = 0x8, 0x9


@pytest.fixture
def pollers(monkeypatch: pytest.MonkeyPatch) -> set[ConnectionPoller]:
    """The pollers that have polled a connection."""
    monkeypatch.setattr(connection, "POLL_INTERVAL_SECONDS", 0.05)
    found: set[ConnectionPoller] = set()
    poll = ConnectionPoller.poll

    def record(self: ConnectionPoller, one: connection.ClientConnection) -> None:
        found.add(self)
        poll(self, one)

    monkeypatch.setattr(ConnectionPoller, "poll", record)
    return found


async def test_a_subscriber_that_has_read_everything_is_not_polled(
    address: str, make: Factory, pollers: set[ConnectionPoller]
) -> None:
    ada = await make.user()
    async with listening(address, ada) as socket:
        task = await make.task(ada)
        assert (await told(socket))["task_id"] == task
        (poller,) = pollers
        async with asyncio.timeout(WAIT_SECONDS):
            while poller._polled:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert poller._ping_times


async def test_a_subscriber_that_answers_no_ping_is_disconnected(
    address: str, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POLL_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(websocket_protocol, "PING_INTERVAL_SECONDS", 0.1)
    ada = await make.user()
    raw, _ = await dial(f"http://{address}", {"Authorization": f"Bearer {ada.token}"})
    frames: list[tuple[int, bytes]] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while not frames or frames[-1][0] != CLOSE:
            assert await raw.read()
            frames += raw.frames()
    raw.socket.close()
    assert [opcode for opcode, _ in frames].count(PING) == 1
    assert int.from_bytes(frames[-1][1][:2], "big") == 1011


async def test_a_subscriber_that_answers_pings_stays_connected(
    address: str, make: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "POLL_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(websocket_protocol, "PING_INTERVAL_SECONDS", 0.1)
    pings = 0
    ping = websocket_protocol.WebSocketProtocol.ping

    def count(self: websocket_protocol.WebSocketProtocol) -> None:
        nonlocal pings
        pings += 1
        ping(self)

    monkeypatch.setattr(websocket_protocol.WebSocketProtocol, "ping", count)
    ada = await make.user()
    async with listening(address, ada) as socket:
        async with asyncio.timeout(WAIT_SECONDS):
            while pings < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task = await make.task(ada)
        assert (await told(socket))["task_id"] == task
