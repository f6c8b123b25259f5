"""What every request passes, once, on its way from `api.protocols` to its endpoint and back.

In this order: an id and a clock, CORS, authentication and the rate limit, the bounds of a body, the route, the
endpoint, the headers. So a request to an unknown path is counted, too. The last handler of errors is around all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from service.api import problems, responses
from service.api.headers import headers_of
from service.api.pipeline.backpressure import PIECE_BYTES, Backpressure
from service.api.pipeline.body_limits import BodyLimits
from service.api.pipeline.rate_limit import check_rate_limit
from service.api.pipeline.response_sender import (
    ResponseSender,
    add_headers,
    request_id_of,
)
from service.api.request_checks import has_body
from service.api.state import SERVICES
from service.core import logs
from service.core.errors import RateLimitedError, ServiceError

SENDER = "service.sender"
"""Where a request's scope keeps its ResponseSender."""
RequestHandler: TypeAlias = Callable[[Request], Awaitable[Response]]


DOCUMENT_POLICY = (
    b"content-security-policy",
    b"; ".join(
        [
            b"default-src 'self'",
            b"script-src 'self' 'unsafe-inline'",
            b"style-src 'self' 'unsafe-inline'",
            b"img-src 'self' data:",
            b"worker-src blob:",
            b"frame-ancestors 'none'",
        ]
    ),
)


class RequestPipeline:
    """The ASGI application that every request and WebSocket passes.

    find_endpoint: returns what answers a request, or None for the paths of `documents`.
    documents: the application of the documentation's pages.
    serve_websocket: serves an admitted WebSocket.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        find_endpoint: Callable[[Scope], RequestHandler | None],
        documents: ASGIApp,
        serve_websocket: Callable[[WebSocket], Awaitable[None]],
        body_limits: BodyLimits,
        cors: dict[str, Any] | None,
    ) -> None:
        self._app = app
        self._find_endpoint = find_endpoint
        self._documents = documents
        self._serve_websocket = serve_websocket
        self._body_limits = body_limits
        self._backpressure = Backpressure()
        # CORS answers a preflight before the rate limit: a browser takes a 429 for a refusal.
        self._cors = CORSMiddleware(self._respond, **cors) if cors else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        scope["app"] = self._app
        scope[SERVICES] = self._app.state.services
        if scope["type"] == "http":
            await self._handle_http(scope, receive, send)
        else:
            await self._handle_websocket(scope, receive, send)

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # RFC 9110, section 9.3.2: as GET; the server leaves the content out
            scope = {**scope, "method": "GET", responses.HEAD: True}
        sender = scope[SENDER] = ResponseSender(scope, send)
        token = logs.request_id.set(sender.request_id)
        try:
            if self._cors is not None and b"origin" in headers_of(scope):
                await self._cors(scope, receive, sender.send)
            else:
                await self._respond(scope, receive, sender.send)
        finally:
            sender.record()
            logs.request_id.reset(token)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request and send its response; an error before the start of the response becomes a problem."""
        request = Request(scope, receive)
        sender: ResponseSender = scope[SENDER]
        try:
            await check_rate_limit(request)
            if has_body(scope):
                bounded, slot = self._body_limits.bound(scope, receive)
                async with slot or nullcontext():
                    await self._answer(Request(scope, bounded), send)
            else:
                await self._answer(request, send)
        except asyncio.CancelledError:  # by the server, at the end of its shutdown timeout
            logger.warning("request cancelled")
            if not sender.started:
                stopping = problems.problem("unavailable", "The service is stopping.", headers={"Retry-After": "1"})
                await stopping(scope, receive, send)
        except ClientDisconnect:
            logger.debug("client disconnected")
        except Exception as error:
            if sender.started or not isinstance(error, (ServiceError, HTTPException, RequestValidationError)):
                logger.opt(exception=error).error("request failed")
            if sender.started:
                raise
            await problems.of_error(error)(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> None:
        scope, receive = request.scope, request.receive
        endpoint = self._find_endpoint(scope)
        if endpoint is None:
            await self._documents(scope, receive, self._backpressure.bounded(scope, receive, _document_sender(send)))
            return
        response = await endpoint(request)
        sender: ResponseSender = scope[SENDER]
        if len(response.body) > PIECE_BYTES:
            send = self._backpressure.bounded(scope, receive, send)
        elif isinstance(response, responses.BytesResponse) and send == sender.send and sender.write(response):
            return  # written at once; CORS, which adds headers of its own, has another `send`
        await response(scope, receive, send)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "websocket.http.response.start":
                add_headers(scope, message["headers"], request_id=request_id)
            await send(message)

        token = logs.request_id.set(request_id)
        socket = WebSocket(scope, receive, send_with_headers)
        try:
            await check_rate_limit(socket)
            await self._serve_websocket(socket)
        except RateLimitedError as error:
            await socket.send_denial_response(problems.of_error(error))
        finally:
            logs.request_id.reset(token)


def _document_sender(send: Send) -> Send:
    """Return what sends a page of the documentation, whose scripts and styles come from the service."""

    async def send_with_policy(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append(DOCUMENT_POLICY)
        await send(message)

    return send_with_policy
