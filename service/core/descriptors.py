"""File descriptors: how many this process may open, and how many of them clients may hold."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

from service.core.errors import StartError
from service.core.refusals import Refusals

with suppress(ImportError):  # Windows has none
    import resource

MAX_DESCRIPTORS = 65_536  # containers allow a thousand million, and memory ends before
OWN_DESCRIPTORS = 64  # the listening socket, the event loop, logs, Redis, the weather provider, libraries
MIN_SHARED_DESCRIPTORS = 32
CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class DescriptorBudget:
    """The descriptors that clients may hold; a quarter of what they share remains for the files of their requests.

    connections: sockets of clients in total.
    subscriptions: the part of them that stays open for events.
    """

    connections: int
    subscriptions: int


def raise_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one; child processes started later inherit it."""
    with suppress(NameError, ValueError, OSError):  # macOS refuses a hard limit without a bound
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def budget(*, database_connections: int) -> DescriptorBudget:
    """Divide this process's descriptors. Raises StartError if there are too few."""
    limit = _limit()
    shared = limit - OWN_DESCRIPTORS - database_connections
    if shared < MIN_SHARED_DESCRIPTORS:
        needed = limit - shared + MIN_SHARED_DESCRIPTORS
        raise StartError(f"the process may open {limit} files (`ulimit -n`), and needs at least {needed}")
    return DescriptorBudget(connections=shared * 3 // 4, subscriptions=shared // 2)


def _limit() -> int:
    with suppress(NameError):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return min(soft, MAX_DESCRIPTORS)
    return MAX_DESCRIPTORS


async def watch(refusals: Refusals) -> None:
    """Count a refusal in each second without a free descriptor: the event loop then drops connections silently."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        try:
            socket.socket().close()
        except OSError:
            refusals.add("descriptors")
