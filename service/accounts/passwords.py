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

# bcrypt refuses more than 72 bytes and stops at NUL, so it hashes a digest of the password. The digest's key is a
# constant: with SECRET_KEY in its place, a rotation of that key would invalidate every password.
PEPPER = b"task-manager/password/1"
BCRYPT_COST = 12
MAX_WAITING = 64
MAX_WAITING_PER_KEY = 16  # more than the log-ins per minute and address that the default limit allows
COMMAND_KEY = "no request"  # the slot key of hashes that no request asks for: the first administrator, commands
THREAD_NICENESS = 10
T = TypeVar("T")


class Payer(Protocol):
    """The request that a password hash is charged to."""

    @property
    def address(self) -> str:
        """The client address."""

    @property
    def key(self) -> str:
        """The account that the request names, else the client address; hashes of one key run one after the other."""

    async def charge(self) -> None:
        """Charge one hash. Raises: RateLimitedError if the limit of log-ins is reached."""


class Passwords:
    """A bcrypt hasher with its own threads and a fair, bounded queue in front of them."""

    def __init__(self, *, cost: int = BCRYPT_COST, max_waiting: int = MAX_WAITING) -> None:
        threads = max(1, (os.cpu_count() or 2) - 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt", initializer=_lower_priority)
        self._slots = FairSlots(
            "log-ins", slots=threads, max_waiting=max_waiting, max_waiting_per_key=MAX_WAITING_PER_KEY
        )
        self._cost = cost
        # The password of an unknown user is verified against this hash, so that both answers take the same time.
        self._dummy_hash = bcrypt.hashpw(_digest(secrets.token_urlsafe()), bcrypt.gensalt(cost)).decode()

    async def hash(self, password: str, *, payer: Payer | None) -> str:
        """Return the hash to store; `payer` is None if no request asks for it.

        Raises: RateLimitedError if the payer's limit of log-ins is reached, UnavailableError if too many hashes wait.
        """
        return await self._run(payer, lambda: bcrypt.hashpw(_digest(password), bcrypt.gensalt(self._cost)).decode())

    async def verify(self, password: str, stored_hash: str | None, *, payer: Payer | None) -> bool:
        """Return whether a password matches the stored hash, in the same time if there is none.

        Raises: as `hash`.
        """
        return await self._run(payer, lambda: self._matches(_digest(password), stored_hash))

    def _matches(self, digest: bytes, stored_hash: str | None) -> bool:
        try:
            return bcrypt.checkpw(digest, (stored_hash or self._dummy_hash).encode()) and bool(stored_hash)
        except ValueError:  # a DBA has stored a word in place of a hash: refuse, and in the same time
            bcrypt.checkpw(digest, self._dummy_hash.encode())
            return False

    async def _run(self, payer: Payer | None, work: Callable[[], T]) -> T:
        """Charge the payer, wait for a slot, and run `work` in a thread.

        The thread keeps the slot until `work` ends, even if the caller is cancelled.
        """
        key = payer.key if payer else COMMAND_KEY
        if payer:
            await payer.charge()
        await self._slots.acquire(key)
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(lambda _: self._slots.release(key))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Stop the threads and cancel the hashes that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _lower_priority() -> None:
    """Lower the priority of this thread below the event loop's; only Linux has priorities per thread."""
    if sys.platform == "linux":
        os.nice(THREAD_NICENESS)


def _digest(password: str) -> bytes:
    normalized = unicodedata.normalize("NFC", password).encode()
    return base64.b64encode(hmac.digest(PEPPER, normalized, hashlib.sha256))
