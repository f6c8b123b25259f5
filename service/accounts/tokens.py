"""Access tokens and refresh tokens: how they are signed and verified."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jwt

from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer

ALGORITHM = "HS256"
ISSUER = "task-manager"
AUDIENCE = "task-manager-api"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, section 2.1
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "aud", "sub", "sid", "role", "iat", "exp", "jti"]
SECRET_BYTES, SEAL_BYTES = 32, 16
MAX_VERIFIED_TOKENS = 20_000  # of some 600 bytes
REFRESH_TOKEN_BYTES = 8 + SECRET_BYTES + SEAL_BYTES


class Tokens:
    """Access tokens (JWT, RFC 7519, HS256 only): signed with the first key and verified with any key."""

    def __init__(self, keys: tuple[str, ...], *, minutes: int) -> None:
        self._keys = {_key_id(key): key for key in keys}
        self._kid = _key_id(keys[0])
        self.lifetime_seconds = minutes * 60
        # A request has the token of the one before: verifying it anew takes 60 us. Errors are not kept.
        self._verify_signature = lru_cache(MAX_VERIFIED_TOKENS)(self._decode)

    def issue(self, *, user_id: int, role: str, session_id: int) -> str:
        """Return an access token that is valid for `lifetime_seconds`."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "role": role,
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._keys[self._kid], ALGORITHM, headers={"kid": self._kid, "typ": TOKEN_TYPE})

    def verify(self, token: str) -> Viewer:
        """Return the viewer that the claims of a token name.

        Raises: UnauthorizedError if the token is forged, malformed or expired.
        """
        viewer = self._verify_signature(token)
        if viewer.expires_at + LEEWAY_SECONDS <= time.time():
            raise UnauthorizedError("The token has expired.")
        return viewer

    def _decode(self, token: str) -> Viewer:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TOKEN_TYPE:
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


def hash_secret(secret: str) -> bytes:
    """Return the hash under which an API key or a ticket is stored: both are random and need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _key_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class RefreshToken:
    """The content of a refresh token: its session and 256 random bits."""

    session_id: int
    secret: bytes

    @property
    def hash(self) -> bytes:
        """The hash under which the token is stored."""
        return hashlib.sha256(self.secret).digest()


class RefreshTokens:
    """The text form of refresh tokens, sealed with an HMAC of the first key."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(hashlib.sha256(b"refresh:" + key.encode()).digest() for key in keys)

    def write(self, token: RefreshToken) -> str:
        """Return the sealed text that a client stores."""
        content = token.session_id.to_bytes(8, "big") + token.secret
        return base64.urlsafe_b64encode(content + _seal(self._keys[0], content)).decode().rstrip("=")

    def read(self, text: str) -> tuple[RefreshToken, bool]:
        """Return the token in a text, and whether one of the keys made its seal.

        Raises: UnauthorizedError if the text does not have the form of a refresh token.
        """
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            sealed = b""
        if len(sealed) != REFRESH_TOKEN_BYTES:
            raise UnauthorizedError("The refresh token is not valid.")
        content, seal = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
        is_genuine = any(hmac.compare_digest(seal, _seal(key, content)) for key in self._keys)
        return RefreshToken(int.from_bytes(content[:8], "big", signed=True), content[8:]), is_genuine


def _seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)[:SEAL_BYTES]
