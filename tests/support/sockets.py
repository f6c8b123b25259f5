"""Applications of this process, served on a socket like those of the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from service.api.connection import ConnectionPoller
from service.api.connection_limits import ConnectionLimits
from service.api.protocols import HttpProtocol, protocols
from service.api.websocket_protocol import MAX_MESSAGE_BYTES, WebSocketProtocol

MAX_CONNECTIONS = 1000


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve a started application; yield its address as `host:port`."""
    http, ws = protocols(ConnectionLimits(MAX_CONNECTIONS, trusted=()))
    config = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: http(config, state, {}), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    await asyncio.gather(*state.tasks, return_exceptions=True)


@asynccontextmanager
async def on_port(
    app: ASGIApp, *, sockets: bool = False, protocol: type[HttpProtocol] = HttpProtocol
) -> AsyncIterator[int]:
    """Serve an application on a free port; yield the port."""
    limits, poller = ConnectionLimits(MAX_CONNECTIONS, trusted=()), ConnectionPoller()
    ws: Any = partial(WebSocketProtocol, limits=limits, poller=poller) if sockets else "none"
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws=ws)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}, limits=limits, poller=poller), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for connection in list(state.connections):
        connection.transport.close()
