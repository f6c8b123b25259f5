"""The rate limits of requests and WebSockets, checked before anything else is read."""

from __future__ import annotations

from typing import Any

from fastapi_limiter.depends import RateLimiter
from starlette.requests import HTTPConnection
from typing_extensions import override

from service.accounts.api_keys import KEY_PREFIX
from service.api.authentication import address_of, credential_of, identity_of
from service.api.headers import headers_of
from service.api.pipeline.response_sender import LIMIT_DECISIONS
from service.api.state import state_of
from service.core.errors import RateLimitedError
from service.core.viewer import Viewer
from service.ratelimit import limiter
from service.ratelimit.limiter import LimitDecision
from service.ratelimit.login_limiter import LogInAttempt

UNLIMITED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
API_KEY = KEY_PREFIX.encode()
LOG_IN_PATHS = frozenset({"/auth/login", "/auth/refresh", "/auth/register"})
# Stands in for the library's limiter, which is not used: our limits belong to the application, created later.
NO_LIMITER: Any = None


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


_log_ins = PerKeyRateLimiter(NO_LIMITER, identifier=address_of)


async def check_rate_limit(request: HTTPConnection) -> None:
    """Authenticate a request or WebSocket and count it towards its limit, before anything else of it is read.

    Raises: RateLimitedError.
    """
    scope = request.scope
    limits = state_of(request).limits
    if limits.logins and scope["path"] in LOG_IN_PATHS and scope.get("method") == "POST":
        await _log_ins(request, limits.logins.by_address)
        await identity_of(request)
    elif scope["path"] not in UNLIMITED_PATHS:
        if limits.requests and API_KEY in headers_of(scope).get(b"authorization", b""):
            await _refuse_guesses(request, limits.requests)
        identity = await identity_of(request)
        if limits.requests:
            key = f"user:{identity.id}" if isinstance(identity, Viewer) else await address_key(request)
            enforce(request, await limits.requests.check(key))


async def _refuse_guesses(request: HTTPConnection, limit: limiter.RateLimiter) -> None:
    """Refuse a token that only the database can verify, if its address has used up its budget on others.

    Raises: RateLimitedError.
    """
    credential = credential_of(request)
    if credential and state_of(request).session_cache.is_uncached_key(credential):
        key = await address_key(request)
        if limit.is_exhausted(key):
            enforce(request, await limit.check(key))
