"""The WebSocket's route, and the middleware that serves it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Query, Response, WebSocket
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.openapi import problems
from service.api.problems import problem
from service.api.streaming.websocket import Listening, listen

router = APIRouter(tags=["events"])


@router.get("/ws", status_code=101, response_class=Response, responses=problems(403, 426))
async def upgrade(_query: Annotated[Listening, Query()]) -> Response:
    """Listen over a WebSocket (426 without one).

    Who it is: `Authorization`, or the sub-protocols `bearer, TOKEN`, or `?ticket=`, or the first message
    `{"type": "auth", "token": "…", "since": "…"}` within ten seconds. The first frame is
    `{"type": "ready", "cursor": "…"}`, or `reset` where the cursor is of no use; then events as in `GET /events`.
    `{"type": "subscribe", "user_id": 1, "status": ["done"]}` narrows them; `auth` again keeps the socket open.
    Close codes: 4401 authentication, 4403 session ended, 4408 nothing read, 1008 too many messages, or too many
    subscriptions of the user or the address, 1009 a message too large, 1012 the service stops, 1013 the database is
    unavailable, or too many subscriptions are open."""
    return problem("upgrade_required", headers={"Upgrade": "websocket"})


class Sockets:
    """Serves the WebSocket beside the router, whose layers would keep 5 KB for each connection; pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request."""
        if scope["type"] != "websocket":
            return self.app(scope, receive, send)
        socket = WebSocket(scope, receive, send)
        if scope["path"] == "/ws":
            return listen(socket)
        return socket.send_denial_response(problem("not_found"))
