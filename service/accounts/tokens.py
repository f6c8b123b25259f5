"""Access tokens and refresh tokens: how they are written and verified."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer

ALGORITHM = "HS256"
ISSUER = "task-manager"
AUDIENCE = "task-manager-api"
TYPE = "at+jwt"  # RFC 9068, section 2.1
LEEWAY_SECONDS = 5
CLAIMS = ["iss", "aud", "sub", "sid", "role", "iat", "exp", "jti"]
SECRET_BYTES, SEAL_BYTES = 32, 16
REFRESH_BYTES = 8 + SECRET_BYTES + SEAL_BYTES


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
