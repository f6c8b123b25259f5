"""The rate limits of every request, checked before anything else is read."""

from __future__ import annotations

from typing import Any

from fastapi_limiter.depends import RateLimiter
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import problems
from service.api.authentication import address_of, credential_of, identity_of
from service.api.pipeline.request_context import LIMIT_DECISIONS
from service.api.state import state_of
from service.core.errors import RateLimitedError
from service.core.viewer import Viewer
from service.ratelimit import limiter
from service.ratelimit.limiter import LimitDecision
from service.ratelimit.login_limiter import LogInAttempt

UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})
LOG_INS = frozenset({"/auth/login", "/auth/refresh", "/auth/register"})  # before the body is read
# The library's own limiter is not used: its limits are the application's, which is not made yet.
NO_LIMITER: Any = None


async def user_of(request: HTTPConnection) -> str:
    """Give whom a request is counted under: the user of its token, or its address where there is no good one."""
    identity = await identity_of(request)
    return f"user:{identity.id}" if isinstance(identity, Viewer) else f"address:{await address_of(request)}"


def spent(request: HTTPConnection, verdict: LimitDecision) -> None:
    """Put a verdict into the reply's headers; RateLimitedError where it is a refusal."""
    request.scope.setdefault(LIMIT_DECISIONS, {})[verdict.policy] = verdict
    if verdict.retry_after:
        raise RateLimitedError("Too many requests.", retry_after=verdict.retry_after)


async def attempt_of(request: HTTPConnection, *, account: str | None = None) -> LogInAttempt:
    """Return what pays for the hashes of a request; `account` is the username that it names, if any."""
    return LogInAttempt(
        state_of(request).limits.logins,
        address=await address_of(request),
        account=account,
        decisions=request.scope.setdefault(LIMIT_DECISIONS, {}),
    )


class PerKey(RateLimiter):
    """One budget for each key that the library's `identifier` gives.

    The library's own `__call__` fails on routes of an included router, and puts all clients that share a path into one
    bucket of a limiter that holds one lock over its round trips.
    """

    async def __call__(self, request: HTTPConnection, limit: limiter.RateLimiter) -> None:  # type: ignore[override]
        """Spend one permit of the key; RateLimitedError."""
        spent(request, await limit.check(await self.identifier(request)))


class RateLimitMiddleware:
    """Limits every request and WebSocket but those to UNLIMITED, whatever will be answered, before a body is read.

    One budget for each user over all paths, for each address where there is no user; log-ins, registrations and
    refreshes have their own for each address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._requests = PerKey(NO_LIMITER, identifier=user_of)
        self._log_ins = PerKey(NO_LIMITER, identifier=address_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        limited = scope["type"] in {"http", "websocket"} and scope["path"] not in UNLIMITED
        refusal = await self._refusal(HTTPConnection(scope)) if limited else None
        await (refusal or self.app)(scope, receive, send)

    async def _refusal(self, request: HTTPConnection) -> Response | None:
        try:
            await self._check(request)
        except RateLimitedError as error:
            return await problems.on_service_error(request, error)
        return None

    async def _check(self, request: HTTPConnection) -> None:
        limits = state_of(request).limits
        if limits.logins and request.scope.get("method") == "POST" and request.scope["path"] in LOG_INS:
            await self._log_ins(request, limits.logins.by_address)
        elif limits.requests:
            await _refuse_guesses(request, limits.requests)
            await self._requests(request, limits.requests)


async def _refuse_guesses(request: HTTPConnection, limit: limiter.RateLimiter) -> None:
    """RateLimitedError for a key that only the database knows, from an address that has spent its budget on others."""
    credential, address = credential_of(request), f"address:{await address_of(request)}"
    if credential and state_of(request).session_cache.is_uncached_key(credential) and limit.is_exhausted(address):
        spent(request, await limit.check(address))
