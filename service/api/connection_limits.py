"""Limits on how many connections and event subscriptions clients hold at once."""

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
    """Return how many connections and subscriptions this process may hold.

    Raises: StartError if the limit of open files leaves too few.
    """
    listener = 1
    pools = sum(profile.connections for profile in pool.profiles(settings).values())
    return descriptors.budget(database_connections=pools + listener)


class ConnectionLimits:
    """The bound on the connections of one process: one in total, and half of it for each address.

    The address of a proxy in TRUSTED_PROXIES has no bound of its own, because it stands for many clients.
    """

    def __init__(self, total: int, *, trusted: tuple[Network, ...]) -> None:
        self._slots = Slots[str](total=total, per_key=max(1, total // 2))
        self._trusted = trusted
        self._refusals = Refusals()

    def acquire(self, peer: Any) -> str | None:
        """Count a connection of a socket's peer name, and return the address to release it by; None refuses it."""
        host = peer[0] if isinstance(peer, tuple) else None
        address = client_address(host, (), ())
        bound = self._slots.exhausted(address)
        if bound == "total" or (bound and not is_trusted(address, self._trusted)):
            self._refusals.add("process_connections" if bound == "total" else "address_connections")
            return None
        self._slots.acquire(address)
        return address

    def release(self, address: str) -> None:
        """Count one connection of the address less."""
        self._slots.release(address)


class SubscriptionLimits:
    """The bounds on the WebSockets and event streams of one process: in total, half of it per address, and per user."""

    def __init__(self, total: int, *, per_user: int) -> None:
        self._by_address = Slots[str](total=total, per_key=max(1, total // 2))
        self._by_user = Slots[int](total=total, per_key=per_user)
        self._per_user = per_user
        self._refusals = Refusals()
        metrics.SUBSCRIBERS_MAX.set(total)

    @contextmanager
    def from_address(self, address: str) -> Iterator[None]:
        """Hold a slot of the process and of the address for the length of a block.

        Raises: UnavailableError if the process has none left, RateLimitedError if the address has none.
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
        """Hold a slot of the user for the length of a block. Raises RateLimitedError if the user has none left."""
        if self._by_user.exhausted(user_id):
            self._refusals.add("user_subscriptions")
            detail = f"A user has at most {self._per_user} subscriptions."
            raise RateLimitedError(detail, retry_after=RETRY_SECONDS)
        with self._by_user.slot(user_id):
            yield
