"""The WebSocket's route, and what serves it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, WebSocket

from service.api.openapi import problems
from service.api.problems import problem
from service.api.streaming import websocket
from service.api.streaming.websocket import WebSocketParams

router = APIRouter(tags=["events"])


@router.get("/ws", summary="Open a WebSocket", status_code=101, response_class=Response, responses=problems(403, 426))
async def open_websocket(_query: Annotated[WebSocketParams, Query()]) -> Response:
    """Subscribe to events over a WebSocket.

    A client authenticates in one of four ways:

    - the header `Authorization: Bearer TOKEN`
    - the sub-protocols `bearer, TOKEN`
    - the parameter `ticket`
    - the first message, within ten seconds: `{"type": "auth", "token": "…", "since": "…"}`

    The first frame is `{"type": "ready", "cursor": "…"}`. It is `{"type": "reset", "cursor": "…"}` if `since` is not
    usable: then read your lists again. Events follow in the form of `GET /events`.

    `{"type": "subscribe", "user_id": 1, "status": ["done"]}` filters them. Another `auth` message, sent before the
    token expires, keeps the socket open.

    | close code | reason |
    |---|---|
    | 4401 | the authentication is missing, invalid, too late or expired |
    | 4403 | the session has ended, or the key was revoked |
    | 4408 | the client reads nothing |
    | 1008 | too many messages, or too many subscriptions of the user or the address |
    | 1009 | a message is too large |
    | 1012 | the service stops |
    | 1013 | the database is unavailable, or the process has no slot left |

    A request that is not a WebSocket handshake returns 426.
    """
    return problem("upgrade_required", headers={"Upgrade": "websocket"})


async def serve(socket: WebSocket) -> None:
    """Serve an admitted WebSocket without the router, whose layers would keep 5 KB per connection."""
    if socket.scope["path"] == "/ws":
        await websocket.serve(socket)
    else:
        await socket.send_denial_response(problem("not_found"))
