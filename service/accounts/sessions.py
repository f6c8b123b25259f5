"""The operations on log-in sessions."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from loguru import logger

from service.accounts.passwords import Passwords, Payer
from service.accounts.schemas import USERNAME, Credentials, Token
from service.accounts.session_cache import SessionCache
from service.accounts.tokens import SECRET_BYTES, RefreshToken, RefreshTokens, Tokens
from service.core.errors import NotFoundError, UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MAX_SESSIONS = 100
REPEATABLE_SECONDS = 10.0
MAX_USER_AGENT_CHARACTERS = 300


@dataclass(frozen=True)
class Sessions:
    """The operations on log-in sessions."""

    passwords: Passwords
    tokens: Tokens
    refresh_tokens: RefreshTokens
    session_cache: SessionCache
    lifetime_days: int

    async def log_in(self, db: Executor, credentials: Credentials, *, payer: Payer, user_agent: str | None) -> Token:
        """Create a session and return its tokens.

        Raises: UnauthorizedError, the same for an unknown or inactive user and for a wrong password.
        """
        # PostgreSQL's lower() takes a Turkish İ for an i, and the limits per account do not.
        is_username = re.fullmatch(USERNAME, credentials.username)
        row = await q.accounts.credentials(db, username=credentials.username) if is_username else None
        matches = await self.passwords.verify(credentials.password, row and row["password_hash"], payer=payer)
        if not matches or row is None or not row["active"]:
            raise UnauthorizedError("Wrong username or password.")
        secret = secrets.token_bytes(SECRET_BYTES)
        created = await q.accounts.open_session(
            db,
            user_id=row["id"],
            verified_hash=row["password_hash"],
            refresh_hash=RefreshToken(0, secret).hash,
            secret=secrets.token_bytes(SECRET_BYTES),
            days=self.lifetime_days,
            client_address=payer.address,
            user_agent=_storable(user_agent),
            max_sessions=MAX_SESSIONS,
        )
        if created is None:  # during the verification the password was changed or the account deactivated
            raise UnauthorizedError("Wrong username or password.")
        session_id = created["id"]
        self.session_cache.forget(row["id"])  # the oldest session may have ended
        logger.bind(user_id=row["id"], session_id=session_id).info("user logged in")
        return self._token(row["id"], row["role"], RefreshToken(session_id, secret))

    async def refresh(self, db: Executor, text: str) -> Token:
        """Exchange a refresh token for new tokens.

        The token that was used last works for another REPEATABLE_SECONDS and returns the same successor, so that a
        client's parallel tabs all continue. A later reuse ends the session.

        Raises: UnauthorizedError.
        """
        token, is_genuine = self.refresh_tokens.read(text)
        row = await q.accounts.rotate(
            db, refresh_token=token.secret, days=self.lifetime_days
        ) or await q.accounts.recent_successor(db, refresh_token=token.secret, seconds=REPEATABLE_SECONDS)
        if row is not None:
            return self._token(row["user_id"], row["role"], RefreshToken(row["id"], row["successor"]))
        if is_genuine and await q.accounts.end_reused(db, session_id=token.session_id):
            self.session_cache.forget_session(token.session_id)
            logger.bind(session_id=token.session_id, reason="refresh token reused").warning("session ended")
        raise UnauthorizedError("The refresh token is not valid.")

    def _token(self, user_id: int, role: str, refresh_token: RefreshToken) -> Token:
        return Token(
            access_token=self.tokens.issue(user_id=user_id, role=role, session_id=refresh_token.session_id),
            expires_in=self.tokens.lifetime_seconds,
            refresh_token=self.refresh_tokens.write(refresh_token),
        )

    async def log_out(self, db: Executor, viewer: Viewer) -> None:
        """End the viewer's current session. Raises: NotFoundError for an API key, which has no session."""
        if viewer.session_id is None:
            raise NotFoundError("An API key has no session: `DELETE /auth/keys/{id}` revokes it.")
        await self.end(db, viewer, viewer.session_id)

    async def list(self, db: Executor, viewer: Viewer) -> dict[str, Any]:
        """Return the viewer's sessions as `{items}`."""
        rows = await q.accounts.sessions(db, user_id=viewer.id, row_limit=MAX_SESSIONS)
        return {"items": [{**row, "current": row["id"] == viewer.session_id} for row in map(dict, rows)]}

    async def end(self, db: Executor, viewer: Viewer, session_id: int) -> None:
        """End one of the viewer's sessions. Raises: NotFoundError."""
        ended = await q.accounts.end_session(db, session_id=session_id, user_id=viewer.id)
        self.session_cache.forget(viewer.id)
        if not ended:
            raise NotFoundError("There is no such session.")
        logger.bind(user_id=viewer.id, session_id=session_id).info("session ended")


def _storable(user_agent: str | None) -> str | None:
    return user_agent and user_agent.replace("\0", "")[:MAX_USER_AGENT_CHARACTERS]
