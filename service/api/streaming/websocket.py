"""One WebSocket, from its acceptance to its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import Response, WebSocket, WebSocketDisconnect
from loguru import logger
from pydantic import Field, TypeAdapter, ValidationError

from service.api import problems
from service.api.authentication import address_of
from service.api.state import AppState
from service.api.streaming.subscriptions import Items, client_connection_of, first_of, greeting, is_ours
from service.core.errors import RateLimitedError, UnauthorizedError, UnavailableError
from service.core.validation import Id, Input
from service.core.viewer import Viewer
from service.events.event import Event
from service.events.hub import Ready, Reset
from service.events.position import NOWHERE
from service.events.subscriber import GONE, UNAUTHORIZED, EndedError, Subscriber, Wanted
from service.tasks.schemas import Status

AUTH_SECONDS = 10.0
MAX_MESSAGES = 100
MESSAGES_SECONDS = 60.0
REASONS = {UNAUTHORIZED: "the token has ended", GONE: "the session is over, or the account's role has changed"}
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


class Listening(Input):
    """Where to go on from, and who it is."""

    since: Annotated[str | None, Field(description="A cursor; without it: what comes from now on.")] = None
    ticket: Annotated[str | None, Field(description="Of `POST /auth/ticket`, for browsers.")] = None


class Auth(Input):
    """Who the client is: the first message where nothing else said it, and again before the token ends."""

    type: Literal["auth"]
    token: str
    since: str | None = None


class Subscribe(Input):
    """What the client wants to hear of; absent or null is everything that it may."""

    type: Literal["subscribe"]
    user_id: Id | None = None
    status: list[Status] | None = None


MESSAGE: TypeAdapter[Auth | Subscribe] = TypeAdapter(Annotated[Auth | Subscribe, Field(discriminator="type")])


class CloseError(Exception):
    """The connection is closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


async def listen(socket: WebSocket) -> None:
    """Listen to the events that the viewer may see."""
    state: AppState = socket.app.state.services
    if refusal := _refusal(socket, state):
        await socket.send_denial_response(refusal)
        return
    offered = socket.scope["subprotocols"]
    await socket.accept("bearer" if "bearer" in offered else None)
    try:
        with state.subscriptions.from_address(await address_of(socket)):
            await _Session(socket, state).run()
    except WebSocketDisconnect:
        pass
    except CloseError as closed:
        await _close(socket, closed.code, closed.reason)
    except EndedError as ended:
        await _close(socket, ended.code, REASONS.get(ended.code, "the time of this connection is over"))
    except RateLimitedError as error:
        await _close(socket, POLICY_VIOLATION, error.detail)
    except UnavailableError as error:
        await _close(socket, TRY_AGAIN_LATER, error.detail)
    except UnauthorizedError as error:
        await _close(socket, UNAUTHORIZED, error.detail)


def _refusal(socket: WebSocket, state: AppState) -> Response | None:
    if not is_ours(socket.headers.get("origin"), socket.headers.get("host", ""), state.origins):
        return problems.problem("forbidden", "This origin may not listen: CORS_ORIGINS names those that may.")
    if unknown := socket.query_params.keys() - Listening.model_fields:
        fields = [{"pointer": f"/query/{name}", "message": "is not known here"} for name in sorted(unknown)]
        return problems.problem("invalid", fields=fields)
    return None


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        await socket.close(code, reason)
    except (RuntimeError, WebSocketDisconnect) as error:  # the peer was quicker
        logger.bind(error=str(error)).debug("the listener has left")


class _Session:
    """One connection, from its acceptance to its end."""

    def __init__(self, socket: WebSocket, state: AppState) -> None:
        self._socket = socket
        self._state = state
        self._peer = client_connection_of(socket.scope)
        # An Event takes four times as much, for each connection.
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Find out who it is and send what there is, while messages are answered."""
        viewer, since = await self._introduced()
        event_log = self._state.event_log
        position = await event_log.here(self._state.db) if since is None else event_log.position(since) or NOWHERE
        subscriber = Subscriber(viewer, position, viewer.expires_at, self._direct)
        with self._state.subscriptions.of_user(viewer.id), self._state.hub.subscribed(subscriber) as items:
            subscriber.viewer = await self._state.session_cache.revalidate(viewer)
            logger.bind(actor_id=viewer.id).debug("a listener has come")
            sending = asyncio.create_task(self._send(items))
            answering = asyncio.create_task(self._answer(subscriber))
            await first_of(sending, answering)

    async def _introduced(self) -> tuple[Viewer, str | None]:
        session_cache = self._state.session_cache
        viewer, since = None, self._socket.query_params.get("since")
        header, offered = self._socket.headers.get("authorization"), self._socket.scope["subprotocols"]
        if header is not None:
            scheme, _, token = header.partition(" ")
            viewer = await session_cache.authenticate(token.strip() if scheme.lower() == "bearer" else "")
        elif "bearer" in offered:
            viewer = await session_cache.authenticate(next((one for one in offered if one != "bearer"), ""))
        elif ticket := self._socket.query_params.get("ticket"):
            viewer = await self._state.tickets.use(self._state.db, ticket)
        if viewer is None:
            message = await self._first_message()
            viewer, since = await session_cache.authenticate(message.token), message.since or since
        return viewer, since

    async def _first_message(self) -> Auth:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                message = MESSAGE.validate_json(await _text(self._socket))
        except TimeoutError:
            raise CloseError(UNAUTHORIZED, "nothing said in time who this is") from None
        except ValidationError:
            message = None
        if not isinstance(message, Auth):
            raise CloseError(UNAUTHORIZED, 'the first message is {"type": "auth", "token": "..."}')
        return message

    def _direct(self, event: Event) -> bool:
        return self._peer is not None and self._peer.write(event.frame)

    async def _send(self, items: Items) -> None:
        async with aclosing(items):
            async for item in items:
                match item:
                    case Event():
                        if not self._direct(item):
                            await self._socket.send_text(item.body.decode())
                    case Ready() | Reset():
                        await self._socket.send_text(orjson.dumps(greeting(item, self._state.event_log)).decode())
                        if not self._greeted.done():
                            self._greeted.set_result(None)

    async def _say(self, message: dict[str, Any]) -> None:
        await asyncio.shield(self._greeted)  # the first frame is the greeting
        await self._socket.send_text(orjson.dumps(message).decode())

    async def _answer(self, subscriber: Subscriber) -> None:
        loop = asyncio.get_running_loop()
        since, count = loop.time(), 0
        while True:
            text = await _text(self._socket)
            if loop.time() - since > MESSAGES_SECONDS:
                since, count = loop.time(), 0
            count += 1
            if count > MAX_MESSAGES:
                raise CloseError(POLICY_VIOLATION, "too many messages")
            try:
                message = MESSAGE.validate_json(text)
            except ValidationError as error:
                detail = "; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors()[:5])
                await self._say({"type": "error", "code": "invalid", "detail": detail})
                continue
            if isinstance(message, Auth):
                await self._renew(subscriber, message)
            else:
                await self._narrow(subscriber, message)

    async def _renew(self, subscriber: Subscriber, message: Auth) -> None:
        viewer = await self._state.session_cache.authenticate(message.token)
        if viewer != subscriber.viewer:
            raise CloseError(UNAUTHORIZED, "this is another account's token, or of another role")
        subscriber.viewer, subscriber.expires_at = viewer, viewer.expires_at
        await self._state.session_cache.revalidate(viewer)  # what ended before it was the subscriber's was not told it
        await self._say({"type": "authenticated"})

    async def _narrow(self, subscriber: Subscriber, message: Subscribe) -> None:
        viewer = subscriber.viewer
        if message.user_id not in {None, viewer.id} and not viewer.is_admin:
            await self._say({"type": "error", "code": "forbidden", "detail": "These events are another's."})
            return
        status = frozenset(message.status) if message.status is not None else None
        subscriber.wanted = Wanted(message.user_id, status)
        await self._say({"type": "subscribed", "user_id": message.user_id, "status": message.status})


async def _text(socket: WebSocket) -> str:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("text") or ""
