"""WebSocket subscriptions: the handshake, the client's messages, and the events that are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import Response, WebSocket, WebSocketDisconnect
from loguru import logger
from pydantic import Field, TypeAdapter, ValidationError

from service.api import problems
from service.api.authentication import address_of
from service.api.state import AppState
from service.api.streaming.subscriptions import (
    Items,
    client_connection_of,
    position_message,
    wait_for_first,
)
from service.core.close_codes import POLICY_VIOLATION, SESSION_ENDED, TRY_AGAIN_LATER, UNAUTHORIZED
from service.core.errors import RateLimitedError, UnauthorizedError, UnavailableError
from service.core.validation import Id, Input
from service.core.viewer import Viewer
from service.events.event import Event
from service.events.hub import Ready, Reset
from service.events.position import NO_POSITION
from service.events.subscriber import (
    Subscriber,
    SubscriptionEndedError,
    SubscriptionFilter,
)
from service.tasks.schemas import Status

AUTH_TIMEOUT_SECONDS = 10.0
MAX_MESSAGES, MESSAGE_WINDOW_SECONDS = 100, 60.0
MAX_ERRORS = 5  # of an invalid message that the reply names
END_REASONS = {
    UNAUTHORIZED: "the token has expired",
    SESSION_ENDED: "the session has ended, or the account's role has changed",
}


class WebSocketParams(Input):
    """The query parameters of a WebSocket's URL."""

    since: Annotated[
        str | None, Field(description="The cursor to continue from. Without one, events start from now.")
    ] = None
    ticket: Annotated[
        str | None, Field(description="A ticket of `POST /auth/ticket`, for browsers, which cannot send a header.")
    ] = None


class AuthMessage(Input):
    """The message that authenticates a client, or renews its token before it expires.

    It is the first message if the handshake did not authenticate the client.
    """

    type: Literal["auth"]
    token: str
    since: str | None = None


class SubscribeMessage(Input):
    """The message that filters the events to send; an absent or null filter matches every event."""

    type: Literal["subscribe"]
    user_id: Id | None = None
    status: list[Status] | None = None


MESSAGE: TypeAdapter[AuthMessage | SubscribeMessage] = TypeAdapter(
    Annotated[AuthMessage | SubscribeMessage, Field(discriminator="type")]
)


class CloseError(Exception):
    """The client broke the protocol, and the connection is closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


async def serve(socket: WebSocket) -> None:
    """Serve one WebSocket until it is closed."""
    state: AppState = socket.app.state.services
    if refusal := _refusal(socket, state):
        await socket.send_denial_response(refusal)
        return
    await socket.accept("bearer" if "bearer" in socket.scope["subprotocols"] else None)
    try:
        with state.subscriptions.from_address(await address_of(socket)):
            await WebSocketConnection(socket, state).run()
    except WebSocketDisconnect:
        pass
    except CloseError as error:
        await _close(socket, error.code, error.reason)
    except SubscriptionEndedError as error:
        await _close(socket, error.code, END_REASONS.get(error.code, "the subscription has ended"))
    except RateLimitedError as error:
        await _close(socket, POLICY_VIOLATION, error.detail)
    except UnavailableError as error:
        await _close(socket, TRY_AGAIN_LATER, error.detail)
    except UnauthorizedError as error:
        await _close(socket, UNAUTHORIZED, error.detail)


def _refusal(socket: WebSocket, state: AppState) -> Response | None:
    if not state.origins.allows(socket):
        return problems.problem("forbidden", "This origin may not subscribe: CORS_ORIGINS names those that may.")
    if unknown := socket.query_params.keys() - WebSocketParams.model_fields:
        fields = [{"pointer": f"/query/{name}", "message": problems.UNKNOWN_NAME} for name in sorted(unknown)]
        return problems.problem("invalid", fields=fields)
    return None


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        await socket.close(code, reason)
    except (RuntimeError, WebSocketDisconnect) as error:  # the client closed it first
        logger.bind(error=str(error)).debug("subscriber disconnected")


class WebSocketConnection:
    """An accepted WebSocket of one subscriber."""

    def __init__(self, socket: WebSocket, state: AppState) -> None:
        self._socket = socket
        self._state = state
        self._connection = client_connection_of(socket.scope)
        self._send_frame: Callable[[bytes], bool] = self._connection.write if self._connection else lambda _frame: False
        # A future, because each of many connections has one, and an asyncio.Event takes four times the memory.
        self._first_frame_sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Authenticate the client, then send events and answer messages until one of them ends."""
        viewer, since = await self._authenticate()
        event_log = self._state.event_log
        if since is None:
            position = await event_log.current_position(self._state.db)
        else:
            position = event_log.position(since) or NO_POSITION
        subscriber = Subscriber(viewer, position, viewer.expires_at, self._send_frame, needs_keepalive=False)
        with self._state.subscriptions.of_user(viewer.id), self._state.hub.subscribed(subscriber) as items:
            subscriber.viewer = await self._state.session_cache.revalidate(viewer)
            logger.bind(actor_id=viewer.id).debug("subscriber connected")
            sending = asyncio.create_task(self._send(items))
            answering = asyncio.create_task(self._answer(subscriber))
            await wait_for_first(sending, answering)

    async def _authenticate(self) -> tuple[Viewer, str | None]:
        session_cache = self._state.session_cache
        since = self._socket.query_params.get("since")
        header, subprotocols = self._socket.headers.get("authorization"), self._socket.scope["subprotocols"]
        if header is not None:
            scheme, _, token = header.partition(" ")
            return await session_cache.authenticate(token.strip() if scheme.lower() == "bearer" else ""), since
        if "bearer" in subprotocols:
            return await session_cache.authenticate(next((one for one in subprotocols if one != "bearer"), "")), since
        if ticket := self._socket.query_params.get("ticket"):
            return await self._state.tickets.use(self._state.db, ticket), since
        message = await self._first_message()
        return await session_cache.authenticate(message.token), message.since or since

    async def _first_message(self) -> AuthMessage:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_SECONDS):
                message = MESSAGE.validate_json(await _receive_text(self._socket))
        except TimeoutError:
            raise CloseError(UNAUTHORIZED, "the client did not authenticate in time") from None
        except ValidationError:
            message = None
        if not isinstance(message, AuthMessage):
            raise CloseError(UNAUTHORIZED, 'the first message is {"type": "auth", "token": "..."}')
        return message

    async def _send(self, items: Items) -> None:
        async with aclosing(items):
            async for item in items:
                match item:
                    case Event():
                        if not self._send_frame(item.websocket_frame):
                            await self._socket.send_text(item.body.decode())
                    case Ready() | Reset():
                        message = position_message(item, self._state.event_log)
                        await self._socket.send_text(orjson.dumps(message).decode())
                        if not self._first_frame_sent.done():
                            self._first_frame_sent.set_result(None)

    async def _reply(self, message: dict[str, Any]) -> None:
        await asyncio.shield(self._first_frame_sent)  # the first frame is `ready` or `reset`
        await self._socket.send_text(orjson.dumps(message).decode())

    async def _answer(self, subscriber: Subscriber) -> None:
        loop = asyncio.get_running_loop()
        window_start, count = loop.time(), 0
        while True:
            text = await _receive_text(self._socket)
            if loop.time() - window_start > MESSAGE_WINDOW_SECONDS:
                window_start, count = loop.time(), 0
            count += 1
            if count > MAX_MESSAGES:
                raise CloseError(POLICY_VIOLATION, "too many messages")
            try:
                message = MESSAGE.validate_json(text)
            except ValidationError as error:
                await self._reply({"type": "error", "code": "invalid", "detail": _detail(error)})
                continue
            if isinstance(message, AuthMessage):
                await self._renew(subscriber, message)
            else:
                await self._filter(subscriber, message)

    async def _renew(self, subscriber: Subscriber, message: AuthMessage) -> None:
        viewer = await self._state.session_cache.authenticate(message.token)
        if viewer != subscriber.viewer:
            raise CloseError(UNAUTHORIZED, "the token is of another account, or of another role")
        subscriber.viewer, subscriber.expires_at = viewer, viewer.expires_at
        # If the session ended before the subscriber had it, the listener did not end this subscription.
        await self._state.session_cache.revalidate(viewer)
        await self._reply({"type": "authenticated"})

    async def _filter(self, subscriber: Subscriber, message: SubscribeMessage) -> None:
        viewer = subscriber.viewer
        if message.user_id not in {None, viewer.id} and not viewer.is_admin:
            detail = "These events belong to another user."
            await self._reply({"type": "error", "code": "forbidden", "detail": detail})
            return
        status = frozenset(message.status) if message.status is not None else None
        subscriber.event_filter = SubscriptionFilter(message.user_id, status)
        await self._reply({"type": "subscribed", "user_id": message.user_id, "status": message.status})


def _detail(error: ValidationError) -> str:
    return "; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors()[:MAX_ERRORS])


async def _receive_text(socket: WebSocket) -> str:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("text") or ""
