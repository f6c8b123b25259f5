"""Accounts: what comes in, and what can be done with them."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from loguru import logger
from pydantic import AfterValidator, BaseModel, Field

from service.db import Executor
from service.errors import ConflictError, ForbiddenError, StartError, UnauthorizedError
from service.queries import q
from service.security import Passwords, Tokens, Viewer
from service.values import Input, Text

USERNAME = r"^[A-Za-z0-9._-]{3,50}$"
PASSWORD_LENGTH = range(8, 257)
LONGEST_DECOMPOSED = 4 * PASSWORD_LENGTH[-1]


def _composed(password: str) -> str:
    """Give the NFC form, whose characters are counted; far too long a text, slow to compose, stays as it is."""
    return unicodedata.normalize("NFC", password) if len(password) <= LONGEST_DECOMPOSED else password


Role = Literal["user", "admin"]
Composed = Annotated[Text, AfterValidator(_composed)]
Password = Annotated[Composed, Field(min_length=PASSWORD_LENGTH[0], max_length=PASSWORD_LENGTH[-1])]


class Registration(Input):
    """A new account."""

    username: Annotated[str, Field(pattern=USERNAME, description="Unique without regard to case.", examples=["ada"])]
    password: Annotated[Password, Field(description="Any script.", examples=["correct horse battery staple"])]
    role: Annotated[Role, Field(description="Only an administrator may set `admin`.")] = "user"


class Credentials(Input):
    """A log-in."""

    username: Annotated[Text, Field(max_length=256, examples=["ada"])]
    password: Annotated[Composed, Field(max_length=PASSWORD_LENGTH[-1], examples=["correct horse battery staple"])]


class Account(BaseModel):
    """An account as others see it."""

    id: int
    username: str
    role: Role
    created_at: datetime


class Token(BaseModel):
    """An access token: goes into `Authorization: Bearer …`."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's word
    expires_in: Annotated[int, Field(description="Seconds.")]


class Ticket(BaseModel):
    """Goes into the URL of `/ws` or `/events` as `?ticket=`; good once."""

    ticket: str
    expires_in: Annotated[int, Field(description="Seconds.")] = 30


@dataclass(frozen=True)
class Accounts:
    """The operations on accounts."""

    passwords: Passwords
    tokens: Tokens

    async def register(self, db: Executor, viewer: Viewer | None, new: Registration) -> Any:
        """Make an account and give its row; ForbiddenError for a role beyond the viewer, ConflictError where taken."""
        if new.role == "admin" and not (viewer and viewer.is_admin):
            raise ForbiddenError("Only an administrator may register an administrator.")
        return await self._create(db, username=new.username, password=new.password, role=new.role)

    async def log_in(self, db: Executor, credentials: Credentials) -> Token:
        """Give an access token; UnauthorizedError, alike for an unknown user and a wrong password."""
        # Not PostgreSQL's idea of case for what cannot be a name: it takes a Turkish İ for an i, and limits do not.
        possible = re.fullmatch(USERNAME, credentials.username)
        row = await q.accounts.credentials(db, username=credentials.username) if possible else None
        if not await self.passwords.verify(credentials.password, row and row["password_hash"]) or row is None:
            raise UnauthorizedError("Wrong username or password.")
        token = self.tokens.issue(user_id=row["id"], role=row["role"])
        logger.bind(user_id=row["id"]).info("user logged in")
        return Token(access_token=token, expires_in=self.tokens.seconds)

    async def me(self, db: Executor, viewer: Viewer) -> Any:
        """Give the viewer's own row; UnauthorizedError where the account is gone."""
        row = await q.accounts.get(db, user_id=viewer.id)
        if row is None:
            raise UnauthorizedError("The account of this token no longer exists.")
        return row

    async def present(self, db: Executor, viewer: Viewer) -> Viewer:
        """Give the viewer with the role that the account has now; UnauthorizedError where it is gone."""
        rows = await q.accounts.roles(db, user_ids=[viewer.id])
        if not rows:
            raise UnauthorizedError("The account of this token no longer exists.")
        return replace(viewer, is_admin=rows[0]["role"] == "admin")

    async def make_ticket(self, db: Executor, viewer: Viewer) -> Ticket:
        """Give a ticket that stands for the viewer's token once."""
        ticket = secrets.token_urlsafe(32)
        until = datetime.fromtimestamp(viewer.expires_at, UTC)
        await q.accounts.create_ticket(db, hash=_hashed(ticket), user_id=viewer.id, access_expires_at=until)
        return Ticket(ticket=ticket)

    async def use_ticket(self, db: Executor, ticket: str) -> Viewer:
        """Give whom the ticket was made for; UnauthorizedError where it is none, or was used, or is too old."""
        row = await q.accounts.use_ticket(db, hash=_hashed(ticket))
        if row is None:
            raise UnauthorizedError("The ticket is not valid.")
        return Viewer(row["id"], row["role"] == "admin", row["access_expires_at"].timestamp())

    async def create_admin(self, db: Executor, *, username: str, password: str) -> int:
        """Make an administrator for the operator and give its id; StartError where the name or password will not do."""
        check_admin(username, password)
        try:
            row = await self._create(db, username=username, password=password, role="admin")
        except ConflictError:
            raise StartError(f"the username {username!r} is taken") from None
        return int(row["id"])

    async def ensure_admin(self, db: Executor, *, username: str, password: str) -> None:
        """Make the first administrator where there is none."""
        if await q.accounts.has_admin(db):
            return
        made = await q.accounts.create_first_admin(
            db, username=username, password_hash=await self.passwords.hash(password)
        )
        if made:
            logger.bind(username=username).info("first administrator made")
        elif not await q.accounts.has_admin(db):
            logger.bind(username=username).warning("there is no administrator, and ADMIN_USERNAME is taken by a user")

    async def _create(self, db: Executor, *, username: str, password: str, role: Role) -> Any:
        hashed = await self.passwords.hash(password)
        row = await q.accounts.create(db, username=username, password_hash=hashed, role=role)
        logger.bind(user_id=row["id"], role=role).info("user registered")
        return row


def _hashed(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()


def check_admin(username: str, password: str) -> None:
    """StartError where an operator's choice of name or password will not do."""
    if not re.fullmatch(USERNAME, username):
        raise StartError(f"{username!r} is no username: 3 to 50 of A-Z a-z 0-9 . _ -")
    if len(_composed(password)) not in PASSWORD_LENGTH:
        raise StartError(f"a password takes {PASSWORD_LENGTH[0]} to {PASSWORD_LENGTH[-1]} characters")
