"""Passwords: how they are hashed and verified."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import bcrypt

from service.core.fair_slots import FairSlots

# bcrypt refuses more than 72 bytes and stops at NUL, so it is given a digest. The key is a constant of the application
# and not SECRET_KEY, whose rotation must not lose passwords.
PEPPER = b"task-manager/password/1"
COST = 12
MAX_WAITING = 64
MAX_WAITING_PER_KEY = 16  # more than the log-ins that an address has at once by default
NO_REQUEST = "no request"  # the key of the first administrator and of commands
NICE = 10
T = TypeVar("T")


class Payer(Protocol):
    """Whom the hashes of one request are charged to, and `key`: hashes of one key run one after the other."""

    @property
    def address(self) -> str:
        """The client address."""

    @property
    def key(self) -> str:
        """The account, or the client address where there is none."""

    async def charge(self) -> None:
        """Spend what a hash costs; RateLimitedError."""


class Passwords:
    """Hashes and verifies passwords with bcrypt in threads of its own, with a fair and bounded queue before them."""

    def __init__(self, *, cost: int = COST, max_waiting: int = MAX_WAITING) -> None:
        threads = max(1, (os.cpu_count() or 2) - 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt", initializer=_step_back)
        self._slots = FairSlots(
            "log-ins", slots=threads, max_waiting=max_waiting, max_waiting_per_key=MAX_WAITING_PER_KEY
        )
        self._cost = cost
        # What an unknown user's password is verified against, so that the answer takes as long as for a known one.
        self._nobody = bcrypt.hashpw(_digest(secrets.token_urlsafe()), bcrypt.gensalt(cost)).decode()

    async def hash(self, password: str, *, payer: Payer | None) -> str:
        """Return the hash to keep. `payer` is None if no request asks for it.

        Raises: RateLimitedError if the payer has spent its log-ins, UnavailableError if too many hashes wait.
        """
        return await self._run(payer, lambda: bcrypt.hashpw(_digest(password), bcrypt.gensalt(self._cost)).decode())

    async def verify(self, password: str, kept: str | None, *, payer: Payer | None) -> bool:
        """Whether it is the password behind the kept hash; as slow where there is none. Arguments, errors: `hash`."""
        return await self._run(payer, lambda: self._matches(_digest(password), kept))

    def _matches(self, digest: bytes, kept: str | None) -> bool:
        try:
            return bcrypt.checkpw(digest, (kept or self._nobody).encode()) and bool(kept)
        except ValueError:  # no hash, but a DBA's word in its place: it lets nobody in, and as slowly
            bcrypt.checkpw(digest, self._nobody.encode())
            return False

    async def _run(self, payer: Payer | None, work: Callable[[], T]) -> T:
        """Charge, wait for a slot, and work in a thread, which keeps the slot to its end even if the caller leaves."""
        key = payer.key if payer else NO_REQUEST
        if payer:
            await payer.charge()
        await self._slots.acquire(key)
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda _: self._slots.release(key))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Let the threads go; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Let the event loop have the processor first; a thread has a priority of its own on Linux alone."""
    if sys.platform == "linux":
        os.nice(NICE)


def _digest(password: str) -> bytes:
    normal = unicodedata.normalize("NFC", password).encode()
    return base64.b64encode(hmac.digest(PEPPER, normal, hashlib.sha256))
