"""Creates accounts and tasks for tests in SQL, which is faster than the API."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from secrets import token_bytes
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from service.accounts.tokens import Tokens
from service.core.viewer import Viewer

PASSWORD = "correct horse battery staple"
_numbers = count(1)


@dataclass(frozen=True)
class User:
    """An account, its access token, and a client that sends the token."""

    id: int
    username: str
    token: str
    client: httpx.AsyncClient
    viewer: Viewer


@dataclass(frozen=True)
class Factory:
    """A factory of accounts and tasks; every value not passed is generated and unique."""

    sql: asyncpg.Connection[asyncpg.Record]
    app: FastAPI

    async def user(self, *, username: str | None = None, role: str = "user", password: str = PASSWORD) -> User:
        """Create an account that can log in with the password."""
        name = username or f"user-{next(_numbers)}"
        hashed = await self.app.state.services.users.passwords.hash(password, payer=None)
        user_id = await self.sql.fetchval(
            "insert into users (username, password_hash, role) values ($1, $2, $3) returning id", name, hashed, role
        )
        session_id = await self.session(user_id)
        tokens: Tokens = self.app.state.services.sessions.tokens
        token = tokens.issue(user_id=user_id, role=role, session_id=session_id)
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"},
        )
        viewer = Viewer(id=user_id, is_admin=role == "admin", session_id=session_id)
        return User(user_id, name, token, client, viewer)

    async def session(self, user_id: int) -> int:
        """Open a session of an account that lasts a day; return its id."""
        return int(
            await self.sql.fetchval(
                "insert into sessions (user_id, expires_at, secret, refresh_hash)"
                " values ($1, now() + interval '1 day', $2, $2) returning id",
                user_id,
                token_bytes(32),
            )
        )

    async def admin(self) -> User:
        """Create an administrator."""
        return await self.user(role="admin")

    async def task(self, owner: User, **columns: Any) -> int:
        """Create a task and return its id; `columns` are values by column name."""
        columns = {"title": f"task {next(_numbers)}", "user_id": owner.id, **columns}
        numbers = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        statement = f"insert into tasks ({', '.join(columns)}) values ({numbers}) returning id"
        return int(await self.sql.fetchval(statement, *columns.values()))
