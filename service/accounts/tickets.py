"""The operations on tickets, which stand for a token or an API key where a browser cannot send a header."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from service.accounts.schemas import Ticket
from service.accounts.session_cache import SessionCache
from service.accounts.tokens import SECRET_BYTES, hash_secret
from service.core.errors import UnauthorizedError
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q


@dataclass(frozen=True)
class Tickets:
    """The operations on tickets."""

    session_cache: SessionCache

    async def create(self, db: Executor, viewer: Viewer) -> Ticket:
        """Return a new ticket, valid once, for the session or API key of the viewer."""
        ticket = secrets.token_urlsafe(SECRET_BYTES)
        expires_at = None if viewer.expires_at == inf else datetime.fromtimestamp(viewer.expires_at, UTC)
        await q.accounts.create_ticket(
            db,
            hash=hash_secret(ticket),
            user_id=viewer.id,
            access_expires_at=expires_at,
            session_id=viewer.session_id,
            key_id=viewer.key_id,
        )
        return Ticket(ticket=ticket)

    async def use(self, db: Executor, ticket: str) -> Viewer:
        """Use a ticket up and return the viewer that it was created for.

        Raises: UnauthorizedError if the ticket is forged, used or expired, or if its session or API key has ended.
        """
        row = await q.accounts.use_ticket(db, hash=hash_secret(ticket))
        if row is None:
            raise UnauthorizedError("The ticket is not valid.")
        expires_at = row["access_expires_at"]
        viewer = Viewer(
            row["id"],
            row["role"] == "admin",
            session_id=row["session_id"],
            key_id=row["key_id"],
            expires_at=inf if expires_at is None else expires_at.timestamp(),
        )
        return await self.session_cache.revalidate(viewer)
