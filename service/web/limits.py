"""Rate limits of requests: fastapi-limiter's dependency, over the limits of `service.limits`."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request, Response
from fastapi_limiter.depends import RateLimiter

from service.errors import RateLimitedError
from service.limits import Verdict, client_address
from service.security import Viewer
from service.web.deps import Identity, rooms_of
from service.web.middleware import VERDICTS


class PerUser(RateLimiter):
    """One budget for each user over all paths, and for each client address where there is no user.

    The library's own `__call__` fails on routes of an included router, and puts all clients that share a path into one
    bucket of a limiter that holds one lock over its round trips.
    """

    async def __call__(  # type: ignore[override]  # FastAPI fills in what a dependency asks for
        self, request: Request, _response: Response, identity: Identity
    ) -> None:
        """Spend one request; RateLimitedError."""
        if limit := rooms_of(request).limits.requests:
            user = identity.id if isinstance(identity, Viewer) else None
            key = f"user:{user}" if user else f"address:{await self.identifier(request)}"
            spent(request, await limit.check(key))


class PerAddress(RateLimiter):
    """Log-ins and registrations of each client address."""

    async def __call__(self, request: Request, _response: Response) -> None:
        """Spend one log-in; RateLimitedError."""
        if limits := rooms_of(request).limits.log_ins:
            spent(request, await limits.by_address.check(await self.identifier(request)))


async def address_of(request: Request) -> str:
    """Give the address that a request is counted under."""
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.getlist("x-forwarded-for"), rooms_of(request).limits.trusted)


def spent(request: Request, verdict: Verdict) -> None:
    """Put a verdict into the reply's headers; RateLimitedError where it is a refusal."""
    request.scope.setdefault(VERDICTS, []).append(verdict)
    if verdict.retry_after:
        raise RateLimitedError("Too many requests.", retry_after=verdict.retry_after)


# The library's own limiter is not used: its limits are the application's, which is not made yet.
NO_LIMITER: Any = None
per_user = Depends(PerUser(NO_LIMITER, identifier=address_of))
per_address = Depends(PerAddress(NO_LIMITER, identifier=address_of))
