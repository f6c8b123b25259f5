"""The operations on log-in sessions."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

from loguru import logger

from service.accounts.passwords import Passwords, Payer
from service.accounts.schemas import USERNAME, Credentials, NewKey, Ticket, Token
from service.accounts.session_cache import KEY_PREFIX, Sessions, hashed
from service.accounts.tokens import SECRET_BYTES, RefreshToken, RefreshTokens, Tokens
from service.core.errors import ConflictError, ForbiddenError, NotFoundError, UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MAX_SESSIONS = 100
MAX_KEYS = 100
RECALL_SECONDS = 10.0
MAX_AGENT_CHARACTERS = 300


@dataclass(frozen=True)
class Logins:
    """The operations on log-ins."""

    passwords: Passwords
    tokens: Tokens
    refresh_tokens: RefreshTokens
    sessions: Sessions
    days: int

    async def log_in(self, db: Executor, credentials: Credentials, *, attempt: Payer, agent: str | None) -> Token:
        """Begin a session; UnauthorizedError, alike for an unknown or inactive user and a wrong password."""
        # Not PostgreSQL's idea of case for what cannot be a name: it takes a Turkish İ for an i, and limits do not.
        possible = re.fullmatch(USERNAME, credentials.username)
        row = await q.accounts.credentials(db, username=credentials.username) if possible else None
        good = await self.passwords.verify(credentials.password, row and row["password_hash"], payer=attempt)
        if not good or row is None or not row["active"]:
            raise UnauthorizedError("Wrong username or password.")
        secret = secrets.token_bytes(SECRET_BYTES)
        opened = await q.accounts.open_session(
            db,
            user_id=row["id"],
            known_hash=row["password_hash"],
            refresh_hash=RefreshToken(0, secret).hash,
            secret=secrets.token_bytes(SECRET_BYTES),
            days=self.days,
            client_address=attempt.address,
            user_agent=_storable(agent),
            most=MAX_SESSIONS,
        )
        if opened is None:  # the password was changed, or the account switched off, while this one was verified
            raise UnauthorizedError("Wrong username or password.")
        session_id = opened["id"]
        self.sessions.forget(row["id"])  # the oldest one may have ended
        logger.bind(user_id=row["id"], session_id=session_id).info("user logged in")
        return self._token(row["id"], row["role"], RefreshToken(session_id, secret))

    async def refresh(self, db: Executor, text: str) -> Token:
        """Spend a refresh token; UnauthorizedError, and the end of its session where it was spent before.

        The one that was spent last answers RECALL_SECONDS more, always with the same successor.
        """
        token, genuine = self.refresh_tokens.read(text)
        row = await q.accounts.rotate(
            db, refresh_token=token.secret, days=self.days
        ) or await q.accounts.recent_successor(db, refresh_token=token.secret, seconds=RECALL_SECONDS)
        if row is not None:
            return self._token(row["user_id"], row["role"], RefreshToken(row["id"], row["successor"]))
        if genuine and await q.accounts.end_reused(db, session_id=token.session_id):
            self.sessions.forget_session(token.session_id)
            logger.bind(session_id=token.session_id).warning("a spent refresh token was used again: its session ends")
        raise UnauthorizedError("The refresh token is not valid.")

    def _token(self, user_id: int, role: str, refresh_token: RefreshToken) -> Token:
        return Token(
            access_token=self.tokens.issue(user_id=user_id, role=role, session_id=refresh_token.session_id),
            expires_in=self.tokens.seconds,
            refresh_token=self.refresh_tokens.write(refresh_token),
        )

    async def log_out(self, db: Executor, viewer: Viewer) -> None:
        """End the session that asks; NotFoundError for a key, which has none."""
        if viewer.session_id is None:
            raise NotFoundError("An API key has no session: `DELETE /auth/keys/{id}` ends it.")
        await self.end(db, viewer, viewer.session_id)

    async def list(self, db: Executor, viewer: Viewer) -> dict[str, Any]:
        """Give the viewer's sessions."""
        rows = await q.accounts.sessions(db, user_id=viewer.id, row_limit=MAX_SESSIONS)
        return {"items": [{**row, "current": row["id"] == viewer.session_id} for row in map(dict, rows)]}

    async def end(self, db: Executor, viewer: Viewer, session_id: int) -> None:
        """End one of the viewer's sessions; NotFoundError."""
        ended = await q.accounts.end_session(db, session_id=session_id, user_id=viewer.id)
        self.sessions.forget(viewer.id)
        if not ended:
            raise NotFoundError("There is no such session.")
        logger.bind(user_id=viewer.id, session_id=session_id).info("session ended")

    async def make_key(self, db: Executor, viewer: Viewer, new: NewKey) -> dict[str, Any]:
        """Make an API key and return it, this once.

        Raises: ForbiddenError for a key, which could outlive its own end by another one, and ConflictError.
        """
        if viewer.session_id is None:
            raise ForbiddenError("Only a log-in session creates API keys; this request came with an API key.")
        key = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        row = await q.accounts.create_key(db, user_id=viewer.id, hash=hashed(key), **new.model_dump(), most=MAX_KEYS)
        if row is None:
            raise ConflictError(f"An account has at most {MAX_KEYS} keys.")
        logger.bind(user_id=viewer.id, key_id=row["id"]).info("key made")
        return {**dict(row), "key": key}

    async def keys(self, db: Executor, viewer: Viewer) -> dict[str, Any]:
        """Give the viewer's API keys."""
        return {"items": await q.accounts.list_keys(db, user_id=viewer.id, row_limit=MAX_KEYS)}

    async def end_key(self, db: Executor, viewer: Viewer, key_id: int) -> None:
        """Revoke one of the viewer's API keys; NotFoundError."""
        ended = await q.accounts.revoke_key(db, key_id=key_id, user_id=viewer.id)
        self.sessions.forget(viewer.id)
        if not ended:
            raise NotFoundError("There is no such key.")
        logger.bind(user_id=viewer.id, key_id=key_id).info("key revoked")

    async def make_ticket(self, db: Executor, viewer: Viewer) -> Ticket:
        """Give a ticket that stands once for what the viewer came with."""
        ticket = secrets.token_urlsafe(SECRET_BYTES)
        until = None if viewer.expires_at == inf else datetime.fromtimestamp(viewer.expires_at, UTC)
        await q.accounts.create_ticket(
            db,
            hash=hashed(ticket),
            user_id=viewer.id,
            access_expires_at=until,
            session_id=viewer.session_id,
            key_id=viewer.key_id,
        )
        return Ticket(ticket=ticket)

    async def use_ticket(self, db: Executor, ticket: str) -> Viewer:
        """Give whom the ticket was made for; UnauthorizedError where it is none, or was used, or is too old."""
        row = await q.accounts.use_ticket(db, hash=hashed(ticket))
        if row is None:
            raise UnauthorizedError("The ticket is not valid.")
        until = row["access_expires_at"]
        viewer = Viewer(
            row["id"],
            row["role"] == "admin",
            session_id=row["session_id"],
            key_id=row["key_id"],
            expires_at=inf if until is None else until.timestamp(),
        )
        return await self.sessions.present(viewer)


def _storable(agent: str | None) -> str | None:
    return agent and agent.replace("\0", "")[:MAX_AGENT_CHARACTERS]
