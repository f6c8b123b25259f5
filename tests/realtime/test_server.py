"""Listeners of the real server, of two processes, and when it stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.realtime.test_socket import ticket
from tests.support.factories import Factory
from tests.support.servers import Server, serving
from tests.support.subscribers import closed, dialled, listening, streaming, told


@pytest.fixture
def replicas(tmp_path: Path, live_database_url: str) -> Iterator[tuple[Server, Server]]:
    """Two processes on one database, with the key that the tests' tokens are signed with."""
    with ExitStack() as stack:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        one, two = (
            stack.enter_context(serving(tmp_path / name, DATABASE_URL=live_database_url, LOG_LEVEL="TRACE"))
            for name in ("one", "two")
        )
        yield one, two


def at(server: Server) -> str:
    return urlsplit(server.url).netloc


async def test_tickets_cursors_and_events_work_on_every_replica(replicas: tuple[Server, Server], make: Factory) -> None:
    one, two = (at(server) for server in replicas)
    ada = await make.user()
    issued = await ticket(one, ada)
    async with dialled(two, ticket=issued) as there, listening(one, ada) as here:
        assert (await told(there))["type"] == "ready"
        with replicas[0].client(ada.token) as http:
            made = await asyncio.to_thread(http.post, "/tasks", json={"title": "x"})
        events = [await told(here), await told(there)]
        assert [event["task_id"] for event in events] == [made.json()["id"]] * 2
        last = await make.task(ada)
        assert [(await told(here))["task_id"], (await told(there))["task_id"]] == [last] * 2
    for event in events:  # from either's cursor on, at either
        for address in (one, two):
            async with dialled(address, token=ada.token, since=event["cursor"]) as socket:
                assert (await told(socket))["type"] == "ready"
                assert (await told(socket))["task_id"] == last
    async with dialled(one, ticket=issued) as socket:
        assert await closed(socket) == 4401
    for server in replicas:
        assert issued not in server.log()
        assert ada.token not in server.log()
        assert events[0]["cursor"] not in server.log()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_disconnects_all_subscribers_at_once(
    tmp_path: Path, live_database_url: str, make: Factory, how: signal.Signals
) -> None:
    ada = await make.user()
    with serving(tmp_path, DATABASE_URL=live_database_url) as server:
        async with listening(at(server), ada) as socket, streaming(at(server), ada.token) as stream:
            assert (await stream.next() or {}).get("event") == "ready"
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, how))
            assert await closed(socket) == 1012
            assert await stream.next() is None
            async with asyncio.timeout(5):  # well before the grace that requests have
                assert await stopping == 0
        assert "Traceback" not in server.log()
        assert "ERROR" not in server.log()
