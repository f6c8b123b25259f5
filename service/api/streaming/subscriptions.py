"""What the WebSocket and Server-Sent Events share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from service.api.connection import CONNECTION_EXTENSION, ClientConnection
from service.events.hub import Item, Ready, Reset
from service.events.log import EventLog

Items: TypeAlias = AsyncGenerator[Item, None]
T = TypeVar("T")


def client_connection_of(scope: Scope) -> ClientConnection | None:
    """Give the connection's wire; None on a server that is not ours."""
    peer: ClientConnection | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION)
    return peer


def is_ours(origin: str | None, host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a page of this origin may listen: none (no browser), the own host's, or one that CORS_ORIGINS names."""
    return origin is None or "*" in allowed or origin in allowed or origin.partition("://")[2] == host


def greeting(item: Ready | Reset, event_log: EventLog) -> dict[str, str]:
    """Give the message that says where the next one goes on from."""
    return {"type": "ready" if isinstance(item, Ready) else "reset", "cursor": event_log.cursor(item.position)}


async def left(receive: Receive) -> None:
    """Wait until the client leaves."""
    message: Message = {"type": "http.request"}
    with suppress(HTTPException):  # a body that was announced, and does not come
        while message["type"] != "http.disconnect":
            message = await receive()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run work whose request has been read, and cancel it if the client leaves: ClientDisconnect."""
    task = asyncio.create_task(work)
    await first_of(task, asyncio.create_task(left(receive)))
    if task.cancelled():
        raise ClientDisconnect
    return task.result()


async def first_of(*tasks: asyncio.Task[Any]) -> None:
    """Wait for the first to end, end the others, and raise what the first one raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
