"""Twin P: FastAPI with plain statements over asyncpg's pool and response models; the token's claims are the user."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import asyncpg
import jwt
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

from tests.benchmarks.twins import common
from tests.benchmarks.twins.common import Analytics, NewTask, Status, Task, TaskPatch

COLUMNS = "id, title, description, status, created_at, city, weather, user_id"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class User(BaseModel):
    """The caller, as the token says."""

    id: int
    role: str


async def decode_json(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have a new connection return JSON as objects."""
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool."""
    async with asyncpg.create_pool(
        common.DATABASE_URL, min_size=common.POOL_SIZE, max_size=common.POOL_SIZE, init=decode_json
    ) as pool:
        app.state.pool = pool
        yield


bearer = OAuth2PasswordBearer(tokenUrl="/auth/login")
app = FastAPI(title="P", lifespan=lifespan)


async def acquire(request: Request) -> AsyncIterator[Connection]:
    """Acquire a connection for the request."""
    async with request.app.state.pool.acquire() as connection:
        yield connection


Database = Annotated[Any, Depends(acquire)]


async def current_user(token: Annotated[str, Depends(bearer)]) -> User:
    """Return the token's user."""
    try:
        claims = jwt.decode(token, common.SECRET_KEY, algorithms=[common.ALGORITHM])
    except jwt.InvalidTokenError:
        raise HTTPException(401, "invalid token") from None
    return User(id=int(claims["sub"]), role=claims["role"])


CurrentUser = Annotated[User, Depends(current_user)]


def visible(row: asyncpg.Record | None, user: User) -> dict[str, Any]:
    """Return a task if the user may see it."""
    if row is None:
        raise HTTPException(404, "no such task")
    if row["user_id"] != user.id and user.role != "admin":
        raise HTTPException(403, "not your task")
    return dict(row)


@app.get("/tasks/{task_id}", response_model=Task)
async def get_task(task_id: int, database: Database, user: CurrentUser) -> dict[str, Any]:
    return visible(await database.fetchrow(f"select {COLUMNS} from tasks where id = $1", task_id), user)


@app.get("/tasks", response_model=list[Task])
async def list_tasks(
    database: Database,
    user: CurrentUser,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[dict[str, Any]]:
    values: list[Any] = [user.id, limit, *([status] if status else [])]
    rows = await database.fetch(
        f"select {COLUMNS} from tasks where user_id = $1{' and status = $3' if status else ''}"
        " order by created_at desc, id desc limit $2",
        *values,
    )
    return [dict(row) for row in rows]


@app.post("/tasks", response_model=Task, status_code=201)
async def create_task(new: NewTask, database: Database, user: CurrentUser) -> dict[str, Any]:
    row = await database.fetchrow(
        "insert into tasks (title, description, status, city, user_id) values ($1, $2, $3, $4, $5)"
        f" returning {COLUMNS}",
        new.title,
        new.description,
        new.status,
        new.city,
        user.id,
    )
    return dict(row)


@app.patch("/tasks/{task_id}", response_model=Task)
async def change_task(task_id: int, patch: TaskPatch, database: Database, user: CurrentUser) -> dict[str, Any]:
    async with database.transaction():
        row = await database.fetchrow(f"select {COLUMNS} from tasks where id = $1 for update", task_id)
        task = visible(row, user) | patch.model_dump(exclude_unset=True)
        row = await database.fetchrow(
            f"update tasks set title = $2, description = $3, status = $4, city = $5 where id = $1 returning {COLUMNS}",
            task_id,
            task["title"],
            task["description"],
            task["status"],
            task["city"],
        )
    return dict(row)


@app.get("/analytics", response_model=Analytics)
async def get_analytics(database: Database, user: CurrentUser, start_date: datetime, end_date: datetime) -> Analytics:
    values: list[Any] = [start_date, end_date, *([user.id] if user.role != "admin" else [])]
    own = " and user_id = $3" if user.role != "admin" else ""
    counts = [
        dict(
            await database.fetch(
                f"select {column}, count(*) from tasks where created_at >= $1 and created_at < $2{own} group by 1",
                *values,
            )
        )
        for column in ("status", "user_id")
    ]
    return Analytics(by_status=counts[0], by_user=counts[1])
