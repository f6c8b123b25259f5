"""How many connections clients may hold at once, and how many of them as subscriptions to events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.api.client_address import client_address, is_trusted
from service.core import descriptors, metrics
from service.core.concurrency import Slots
from service.core.descriptors import DescriptorBudget
from service.core.errors import RateLimitedError, UnavailableError
from service.core.refusals import Refusals
from service.core.settings import Settings
from service.db import pool
from service.ratelimit.login_limiter import Network

RETRY_SECONDS = 5


def budget(settings: Settings) -> DescriptorBudget:
    """Return how many connections and subscriptions this process may hold. Raises StartError if it is next to none."""
    listener = 1
    pools = sum(profile.connections for profile in pool.profiles(settings).values())
    return descriptors.budget(database_connections=pools + listener)


class ConnectionLimits:
    """Bound the connections of one process: so many in all, and half of them from one address.

    A proxy in TRUSTED_PROXIES has no bound of its own: it stands for many clients.
    """

    def __init__(self, most: int, *, trusted: tuple[Network, ...]) -> None:
        self._slots = Slots[str](total=most, per_key=max(1, most // 2))
        self._trusted = trusted
        self._refusals = Refusals()

    def acquire(self, peer: Any) -> str | None:
        """Count a connection from a socket's peer name, and return the key to release it by; None if it is refused."""
        host = peer[0] if isinstance(peer, tuple) else None
        address = client_address(host, (), ())
        bound = self._slots.exhausted(address)
        if bound == "total" or (bound and not is_trusted(address, self._trusted)):
            self._refusals.add("process_connections" if bound == "total" else "address_connections")
            return None
        self._slots.acquire(address)
        return address

    def release(self, address: str) -> None:
        """Count a connection no longer."""
        self._slots.release(address)


class SubscriptionLimits:
    """Bound the WebSockets and event streams of one process: in all, half of them from one address, and by user."""

    def __init__(self, most: int, *, per_user: int) -> None:
        self._by_address = Slots[str](total=most, per_key=max(1, most // 2))
        self._by_user = Slots[int](total=most, per_key=per_user)
        self._per_user = per_user
        self._refusals = Refusals()
        metrics.SUBSCRIBERS_MAX.set(most)

    @contextmanager
    def from_address(self, address: str) -> Iterator[None]:
        """Hold a slot of the process and of the address.

        Raises UnavailableError if the process has none left, RateLimitedError if the address has none.
        """
        bound = self._by_address.exhausted(address)
        if bound == "total":
            self._refusals.add("process_subscriptions")
            raise UnavailableError("Too many subscriptions are open.", retry_after=RETRY_SECONDS)
        if bound:
            self._refusals.add("address_subscriptions")
            raise RateLimitedError("Too many subscriptions are open from this address.", retry_after=RETRY_SECONDS)
        with self._by_address.slot(address):
            yield

    @contextmanager
    def of_user(self, user_id: int) -> Iterator[None]:
        """Hold a slot of the user. Raises RateLimitedError if the user has none left."""
        if self._by_user.exhausted(user_id):
            self._refusals.add("user_subscriptions")
            detail = f"A user has at most {self._per_user} subscriptions."
            raise RateLimitedError(detail, retry_after=RETRY_SECONDS)
        with self._by_user.slot(user_id):
            yield
