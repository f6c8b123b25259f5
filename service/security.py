"""Passwords and tokens: how they are made and how they are verified."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import sys
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import bcrypt
import jwt

from service.core.errors import UnauthorizedError
from service.core.fair_slots import FairSlots
from service.core.viewer import Viewer

# bcrypt refuses more than 72 bytes and stops at NUL, so it is given a digest. The key is a constant of the application
# and not SECRET_KEY, whose rotation must not lose passwords.
PEPPER = b"task-manager/password/1"
COST = 12
MAX_WAITING = 64
MAX_WAITING_PER_KEY = 16  # more than the log-ins that an address has at once by default
NO_REQUEST = "no request"  # the key of the first administrator and of commands
NICE = 10

ALGORITHM = "HS256"
ISSUER = "task-manager"
AUDIENCE = "task-manager-api"
TYPE = "at+jwt"  # RFC 9068, section 2.1
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "aud", "sub", "sid", "role", "iat", "exp", "jti"]

SECRET_BYTES, SEAL_BYTES = 32, 16
REFRESH_BYTES = 8 + SECRET_BYTES + SEAL_BYTES

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


class Tokens:
    """Signs access tokens with the first key and verifies them with any: JWT (RFC 7519), HS256 and nothing else."""

    def __init__(self, keys: tuple[str, ...], *, minutes: int) -> None:
        self._keys = {_key_id(key): key for key in keys}
        self._kid = _key_id(keys[0])
        self.seconds = minutes * 60

    def issue(self, *, user_id: int, role: str, session_id: int) -> str:
        """Give an access token that is good for `seconds`."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "role": role,
            "iat": now,
            "exp": now + self.seconds,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._keys[self._kid], ALGORITHM, headers={"kid": self._kid, "typ": TYPE})

    def verify(self, token: str) -> Viewer:
        """Give whom the token speaks for; UnauthorizedError where it is none of ours, or no longer good."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE:
                raise jwt.InvalidTokenError
            claims: dict[str, Any] = jwt.decode(
                token,
                self._keys[header["kid"]],
                [ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": CLAIMS},
            )
            return Viewer(
                id=int(claims["sub"]),
                is_admin={"admin": True, "user": False}[claims["role"]],
                session_id=int(claims["sid"]),
                expires_at=float(claims["exp"]),
            )
        except jwt.ExpiredSignatureError:
            raise UnauthorizedError("The token has expired.") from None
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise UnauthorizedError("The token is not valid.") from None


def _key_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class RefreshToken:
    """256 random bits and the session that they are of; written down with a seal that nobody else can make."""

    session_id: int
    secret: bytes

    @property
    def hash(self) -> bytes:
        """What is kept of it."""
        return hashlib.sha256(self.secret).digest()


class RefreshTokens:
    """Writes refresh tokens down, sealed with the first key."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(hashlib.sha256(b"refresh:" + key.encode()).digest() for key in keys)

    def write(self, token: RefreshToken) -> str:
        """Give the text that a client keeps."""
        content = token.session_id.to_bytes(8, "big") + token.secret
        return base64.urlsafe_b64encode(content + _seal(self._keys[0], content)).decode().rstrip("=")

    def read(self, text: str) -> tuple[RefreshToken, bool]:
        """Give the token, and whether it was sealed here with a key that is still known; UnauthorizedError."""
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            sealed = b""
        if len(sealed) != REFRESH_BYTES:
            raise UnauthorizedError("The refresh token is not valid.")
        content, seal = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
        genuine = any(hmac.compare_digest(seal, _seal(key, content)) for key in self._keys)
        return RefreshToken(int.from_bytes(content[:8], "big", signed=True), content[8:]), genuine


def _seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)[:SEAL_BYTES]
