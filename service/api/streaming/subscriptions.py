"""What WebSockets and event streams share: origins, position messages, and waiting for the client to disconnect."""

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
    """Return the connection that a request came on; None if the server does not provide it."""
    connection: ClientConnection | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION)
    return connection


def position_message(item: Ready | Reset, event_log: EventLog) -> dict[str, str]:
    """Return the message that tells the client the cursor from which the next events continue."""
    return {"type": "ready" if isinstance(item, Ready) else "reset", "cursor": event_log.cursor(item.position)}


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client disconnects."""
    message: Message = {"type": "http.request"}
    with suppress(HTTPException):  # the client announced a body and does not send it in time
        while message["type"] != "http.disconnect":
            message = await receive()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a request whose body has been read, and return its result.

    Raises ClientDisconnect, after it cancelled the work, if the client disconnects first.
    """
    task = asyncio.create_task(work)
    await wait_for_first(task, asyncio.create_task(wait_for_disconnect(receive)))
    if task.cancelled():
        raise ClientDisconnect
    return task.result()


async def wait_for_first(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one task ends, cancel the others, and raise the exception of the one that ended."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
