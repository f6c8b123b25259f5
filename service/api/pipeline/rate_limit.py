"""The rate limits of requests and WebSockets, checked before anything else is read."""

from __future__ import annotations

from typing import Any

from fastapi_limiter.depends import RateLimiter
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from service.api import problems
from service.api.authentication import address_of, credential_of, identity_of
from service.api.pipeline.request_context import LIMIT_DECISIONS
from service.api.state import state_of
from service.core.errors import RateLimitedError
from service.core.viewer import Viewer
from service.ratelimit import limiter
from service.ratelimit.limiter import LimitDecision
from service.ratelimit.login_limiter import LogInAttempt

UNLIMITED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
LOG_IN_PATHS = frozenset({"/auth/login", "/auth/refresh", "/auth/register"})
# Stands in for the library's limiter, which is not used: our limits belong to the application, created later.
NO_LIMITER: Any = None


async def user_key(request: HTTPConnection) -> str:
    """Return the limiter's key of a request: its user, or its address without a valid token."""
    identity = await identity_of(request)
    return f"user:{identity.id}" if isinstance(identity, Viewer) else await address_key(request)


async def address_key(request: HTTPConnection) -> str:
    """Return the limiter's key of a request's address."""
    return f"address:{await address_of(request)}"


def enforce(request: HTTPConnection, decision: LimitDecision) -> None:
    """Keep a decision for the response's headers. Raises RateLimitedError if it refuses the request."""
    request.scope.setdefault(LIMIT_DECISIONS, {})[decision.policy] = decision
    if decision.retry_after:
        raise RateLimitedError("Too many requests.", retry_after=decision.retry_after)


async def attempt_of(request: HTTPConnection, *, account: str | None = None) -> LogInAttempt:
    """Return the log-in attempt that pays for a request's password hashes; `account` is the username, if any."""
    return LogInAttempt(
        state_of(request).limits.logins,
        address=await address_of(request),
        account=account,
        decisions=request.scope.setdefault(LIMIT_DECISIONS, {}),
    )


class PerKeyRateLimiter(RateLimiter):
    """The library's rate limiter, with a budget for each key that its `identifier` returns.

    The library's `__call__` fails on routes of an included router. It also counts all clients of a path together, in a
    limiter that holds one lock over its round trips.
    """

    @override
    async def __call__(self, request: HTTPConnection, limit: limiter.RateLimiter) -> None:  # type: ignore[override]
        enforce(request, await limit.check(await self.identifier(request)))


class RateLimitMiddleware:
    """Pure ASGI middleware that limits every request and WebSocket, except those to UNLIMITED_PATHS.

    A user has one budget over all paths, and so has an address without a user. Log-ins, registrations and refreshes
    have a budget of their own for each address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._requests = PerKeyRateLimiter(NO_LIMITER, identifier=user_key)
        self._log_ins = PerKeyRateLimiter(NO_LIMITER, identifier=address_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of any type."""
        is_limited = scope["type"] in {"http", "websocket"} and scope["path"] not in UNLIMITED_PATHS
        refusal = await self._refusal(HTTPConnection(scope)) if is_limited else None
        await (refusal or self.app)(scope, receive, send)

    async def _refusal(self, request: HTTPConnection) -> Response | None:
        try:
            await self._check(request)
        except RateLimitedError as error:
            return await problems.on_service_error(request, error)
        return None

    async def _check(self, request: HTTPConnection) -> None:
        limits = state_of(request).limits
        if limits.logins and request.scope.get("method") == "POST" and request.scope["path"] in LOG_IN_PATHS:
            await self._log_ins(request, limits.logins.by_address)
        elif limits.requests:
            await _refuse_guesses(request, limits.requests)
            await self._requests(request, limits.requests)


async def _refuse_guesses(request: HTTPConnection, limit: limiter.RateLimiter) -> None:
    """Refuse a token that only the database can verify, if its address has used up its budget on others.

    Raises: RateLimitedError.
    """
    credential, key = credential_of(request), await address_key(request)
    if credential and state_of(request).session_cache.is_uncached_key(credential) and limit.is_exhausted(key):
        enforce(request, await limit.check(key))
