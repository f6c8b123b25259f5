"""The operations on accounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from loguru import logger

from service.accounts.passwords import Passwords, Payer
from service.accounts.schemas import (
    PASSWORD_LENGTH,
    USERNAME,
    AccountChange,
    AccountQuery,
    PasswordChange,
    Registration,
    Role,
    _composed,
)
from service.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StartError,
    UnauthorizedError,
)
from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

LAST = "\x7f"  # behind every character of a username


@dataclass(frozen=True)
class Accounts:
    """The operations on accounts."""

    passwords: Passwords

    async def register(self, db: Executor, viewer: Viewer | None, new: Registration, *, attempt: Payer) -> Any:
        """Make an account and give its row; ForbiddenError for a role beyond the viewer, ConflictError where taken."""
        if new.role == "admin" and not (viewer and viewer.is_admin):
            raise ForbiddenError("Only an administrator may register an administrator.")
        hashed = await self.passwords.hash(new.password, payer=attempt)
        actor_id = viewer.id if viewer else None
        return await self._create(db, username=new.username, hashed=hashed, role=new.role, actor_id=actor_id)

    async def me(self, db: Executor, viewer: Viewer) -> Any:
        """Give the viewer's own row; UnauthorizedError where the account is gone."""
        row = await q.accounts.get(db, user_id=viewer.id)
        if row is None:
            raise UnauthorizedError("The account of this token no longer exists.")
        return row

    async def change_password(self, db: Executor, viewer: Viewer, change: PasswordChange, *, attempt: Payer) -> None:
        """Set a new password; the account's other sessions end. InvalidError where the present one is wrong."""
        kept = await q.accounts.password(db, user_id=viewer.id)
        if not await self.passwords.verify(change.current_password, kept, payer=attempt):
            raise InvalidError("is not the present password", pointer="/current_password")
        hashed = await self.passwords.hash(change.new_password, payer=attempt)
        changed = await q.accounts.set_password(
            db, user_id=viewer.id, password_hash=hashed, known_hash=kept, kept_session_id=viewer.session_id
        )
        if not changed:
            raise ConflictError("The password was changed by another request meanwhile.")
        logger.bind(user_id=viewer.id).info("password changed")

    async def page(self, db: Executor, query: AccountQuery, *, cursors: Cursors) -> dict[str, Any]:
        """Give a page `{items, next_cursor}` of accounts; InvalidError for a foreign cursor."""
        begin = query.q.lower() if query.q else None
        bound_to = ["users", query.sort, begin]
        after = cursors.read(query.cursor, bound_to=bound_to) if query.cursor else (None, None)
        rows = await q.accounts.list(
            db,
            sort=query.sort,
            name_from=begin,
            name_before=begin and begin + LAST,
            after_value=after[0],
            after_id=after[1],
            row_limit=query.limit + 1,
        )
        items = rows[: query.limit]
        last = items[-1] if len(rows) > query.limit else None
        return {
            "items": items,
            "next_cursor": last and cursors.make(value=last["username"].lower(), key=last["id"], bound_to=bound_to),
        }

    async def get(self, db: Executor, user_id: int) -> Any:
        """Give an account; NotFoundError."""
        return _there(await q.accounts.get_account(db, user_id=user_id))

    async def change(self, db: Executor, viewer: Viewer, user_id: int, change: AccountChange) -> Any:
        """Change role or active, and give the account; NotFoundError, ConflictError for the last administrator."""
        sent = change.model_dump(exclude_unset=True)
        row = _there(await q.accounts.change(db, user_id=user_id, role=sent.get("role"), active=sent.get("active")))
        logger.bind(actor_id=viewer.id, user_id=user_id, role=row["role"], active=row["active"]).info("account changed")
        return row

    async def create_admin(self, db: Executor, *, username: str, password: str) -> int:
        """Make an administrator for the operator and give its id; StartError where the name or password will not do."""
        check_admin(username, password)
        hashed = await self.passwords.hash(password, payer=None)
        try:
            row = await self._create(db, username=username, hashed=hashed, role="admin")
        except ConflictError:
            raise StartError(f"the username {username!r} is taken") from None
        return int(row["id"])

    async def ensure_admin(self, db: Executor, *, username: str, password: str) -> None:
        """Make the first administrator where there is none."""
        if await q.accounts.has_admin(db):
            return
        hashed = await self.passwords.hash(password, payer=None)
        made = await q.accounts.create_first_admin(db, username=username, password_hash=hashed)
        if made:
            logger.bind(username=username).info("first administrator made")
        elif not await q.accounts.has_admin(db):
            logger.bind(username=username).warning("there is no administrator, and ADMIN_USERNAME is taken by a user")

    async def _create(
        self, db: Executor, *, username: str, hashed: str, role: Role, actor_id: int | None = None
    ) -> Any:
        row = await q.accounts.create(db, username=username, password_hash=hashed, role=role)
        logger.bind(user_id=row["id"], role=role, actor_id=actor_id).info("user registered")
        return row


def _there(row: Any) -> Any:
    if row is None:
        raise NotFoundError("There is no such account.")
    return row


def check_admin(username: str, password: str) -> None:
    """StartError where an operator's choice of name or password will not do."""
    if not re.fullmatch(USERNAME, username):
        raise StartError(f"{username!r} is no username: 3 to 50 of A-Z a-z 0-9 . _ -")
    if len(_composed(password)) not in PASSWORD_LENGTH:
        raise StartError(f"a password takes {PASSWORD_LENGTH[0]} to {PASSWORD_LENGTH[-1]} characters")
