"""The operations on accounts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from loguru import logger

from service.accounts.passwords import Passwords, Payer
from service.accounts.schemas import (
    PASSWORD_LENGTH,
    USERNAME,
    AccountChange,
    PasswordChange,
    Registration,
    Role,
    UserListParams,
    normalize_password,
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
from service.db.errors import discarded
from service.db.pool import Executor
from service.db.queries import q

AFTER_USERNAMES = "\x7f"  # sorts after every character of a username


@dataclass(frozen=True)
class Users:
    """The operations on accounts.

    registration: who may create accounts, everyone (`open`) or administrators (`admin`).
    """

    passwords: Passwords
    registration: Literal["open", "admin"] = "open"

    async def register(self, db: Executor, viewer: Viewer | None, new: Registration, *, payer: Payer) -> Any:
        """Create an account and return its row.

        Raises: ForbiddenError if the viewer may not register or assign the role, ConflictError for a username in use.
        """
        is_admin = viewer is not None and viewer.is_admin
        if self.registration == "admin" and not is_admin:
            raise ForbiddenError("Only an administrator may register an account.")
        if new.role == "admin" and not is_admin:
            raise ForbiddenError("Only an administrator may register an administrator.")
        password_hash = await self.passwords.hash(new.password, payer=payer)
        actor_id = viewer.id if viewer else None
        return await self._create(
            db, username=new.username, password_hash=password_hash, role=new.role, actor_id=actor_id
        )

    async def get_own(self, db: Executor, viewer: Viewer) -> Any:
        """Return the viewer's own row. Raises: UnauthorizedError if the account no longer exists."""
        row = await q.accounts.get(db, user_id=viewer.id)
        if row is None:
            raise UnauthorizedError("The account of this token no longer exists.")
        return row

    async def change_password(self, db: Executor, viewer: Viewer, change: PasswordChange, *, payer: Payer) -> None:
        """Set a new password and end the account's other sessions.

        Raises: InvalidError if the current password is wrong, ConflictError if another request has changed it.
        """
        verified_hash = await q.accounts.password(db, user_id=viewer.id)
        if not await self.passwords.verify(change.current_password, verified_hash, payer=payer):
            raise InvalidError("Input should be the current password", pointer="/current_password")
        changed = await q.accounts.set_password(
            db,
            user_id=viewer.id,
            password_hash=await self.passwords.hash(change.new_password, payer=payer),
            verified_hash=verified_hash,
            kept_session_id=viewer.session_id,
        )
        if not changed:
            raise ConflictError("Another request has changed the password.")
        logger.bind(user_id=viewer.id).info("password changed")

    async def list(self, db: Executor, params: UserListParams, *, cursors: Cursors) -> dict[str, Any]:
        """Return a page of accounts as `{items, next_cursor}`. Raises: InvalidError for a cursor of another list."""
        prefix = params.q.lower() if params.q else None
        page = cursors.page(params.cursor or None, limit=params.limit, bound_to=["users", params.sort, prefix])
        rows = await q.accounts.list(
            db,
            sort=params.sort,
            name_from=prefix,
            name_before=prefix and prefix + AFTER_USERNAMES,
            after_value=page.after_value,
            after_id=page.after_id,
            row_limit=page.row_limit,
        )
        return page.cut(rows, sort_value=lambda row: row["username"].lower())

    async def get(self, db: Executor, user_id: int) -> Any:
        """Return the row of an account. Raises: NotFoundError."""
        return _found_or_raise(await q.accounts.get_account(db, user_id=user_id))

    async def change(self, db: Executor, viewer: Viewer, user_id: int, change: AccountChange) -> Any:
        """Change an account's role or activity and return its row.

        Raises: NotFoundError, ConflictError for the last active administrator.
        """
        sent = change.model_dump(exclude_unset=True)
        row = await q.accounts.change(db, user_id=user_id, role=sent.get("role"), active=sent.get("active"))
        if row is None:
            await self.get(db, user_id)
            raise discarded("accounts.change")
        logger.bind(actor_id=viewer.id, user_id=user_id, role=row["role"], active=row["active"]).info("account changed")
        return row

    async def create_admin(self, db: Executor, *, username: str, password: str) -> int:
        """Create an administrator for the operator and return the account's id.

        Raises: StartError if the username or password does not meet the rules, or if the username is taken.
        """
        check_admin_credentials(username, password)
        password_hash = await self.passwords.hash(password, payer=None)
        try:
            row = await self._create(db, username=username, password_hash=password_hash, role="admin")
        except ConflictError:
            raise StartError(f"the username {username!r} is taken") from None
        return int(row["id"])

    async def ensure_admin(self, db: Executor, *, username: str, password: str) -> None:
        """Create the first administrator if there is none."""
        if await q.accounts.has_admin(db):
            return
        password_hash = await self.passwords.hash(password, payer=None)
        created = await q.accounts.create_first_admin(db, username=username, password_hash=password_hash)
        if created:
            logger.bind(username=username).info("first administrator created")
        elif not await q.accounts.has_admin(db):
            logger.bind(username=username, reason="ADMIN_USERNAME names a user").warning(
                "first administrator not created"
            )

    async def _create(
        self, db: Executor, *, username: str, password_hash: str, role: Role, actor_id: int | None = None
    ) -> Any:
        row = await q.accounts.create(db, username=username, password_hash=password_hash, role=role)
        logger.bind(user_id=row["id"], role=role, actor_id=actor_id).info("user registered")
        return row


def _found_or_raise(row: Any) -> Any:
    if row is None:
        raise NotFoundError("There is no such account.")
    return row


def check_admin_credentials(username: str, password: str) -> None:
    """Raise StartError if an operator's choice of username or password does not meet the rules."""
    if not re.fullmatch(USERNAME, username):
        raise StartError(f"{username!r} is no username: 3 to 50 of A-Z a-z 0-9 . _ -")
    if len(normalize_password(password)) not in PASSWORD_LENGTH:
        raise StartError(f"a password takes {PASSWORD_LENGTH[0]} to {PASSWORD_LENGTH[-1]} characters")
