"""Twin O: FastAPI with SQLAlchemy's asynchronous ORM and response models, and the user's row for each request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import BigInteger, DateTime, ForeignKey, String, Text, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.benchmarks.twins import common
from tests.benchmarks.twins.common import Analytics, NewTask, Status, TaskPatch


class Base(DeclarativeBase):
    """The tables."""


class User(Base):
    """An account."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    username: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)


class Task(Base):
    """A task."""

    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    title: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="todo")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    city: Mapped[str | None] = mapped_column(Text)
    weather: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


engine = create_async_engine(
    common.DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://"), pool_size=common.POOL_SIZE, max_overflow=0
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
bearer = OAuth2PasswordBearer(tokenUrl="/auth/login")
app = FastAPI(title="O")


async def open_session() -> AsyncIterator[AsyncSession]:
    """Open a session for the request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


async def current_user(token: Annotated[str, Depends(bearer)], session: Session) -> User:
    """Return the row of the token's user."""
    try:
        claims = jwt.decode(token, common.SECRET_KEY, algorithms=[common.ALGORITHM])
    except jwt.InvalidTokenError:
        raise HTTPException(401, "invalid token") from None
    user = await session.get(User, int(claims["sub"]))
    if user is None:
        raise HTTPException(401, "unknown user")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


async def visible_task(session: AsyncSession, user: User, task_id: int) -> Task:
    """Return a task that the user may see."""
    task = await session.get(Task, task_id)
    if task is None:
        raise HTTPException(404, "no such task")
    if task.user_id != user.id and user.role != "admin":
        raise HTTPException(403, "not your task")
    return task


@app.get("/tasks/{task_id}", response_model=common.Task)
async def get_task(task_id: int, session: Session, user: CurrentUser) -> Task:
    return await visible_task(session, user, task_id)


@app.get("/tasks", response_model=list[common.Task])
async def list_tasks(
    session: Session,
    user: CurrentUser,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[Task]:
    tasks = select(Task).where(Task.user_id == user.id)
    if status:
        tasks = tasks.where(Task.status == status)
    page = await session.scalars(tasks.order_by(Task.created_at.desc(), Task.id.desc()).limit(limit))
    return list(page)


@app.post("/tasks", response_model=common.Task, status_code=201)
async def create_task(new: NewTask, session: Session, user: CurrentUser) -> Task:
    task = Task(**new.model_dump(), user_id=user.id)
    session.add(task)
    await session.commit()
    await session.refresh(task)
    return task


@app.patch("/tasks/{task_id}", response_model=common.Task)
async def change_task(task_id: int, patch: TaskPatch, session: Session, user: CurrentUser) -> Task:
    task = await visible_task(session, user, task_id)
    for name, value in patch.model_dump(exclude_unset=True).items():
        setattr(task, name, value)
    await session.commit()
    await session.refresh(task)
    return task


@app.get("/analytics", response_model=Analytics)
async def get_analytics(session: Session, user: CurrentUser, start_date: datetime, end_date: datetime) -> Analytics:
    conditions = [Task.created_at >= start_date, Task.created_at < end_date]
    if user.role != "admin":
        conditions.append(Task.user_id == user.id)
    counts = []
    for column in (Task.status, Task.user_id):
        counted = select(column, func.count()).where(*conditions).group_by(column)
        counts.append(dict((await session.execute(counted)).tuples().all()))
    return Analytics(by_status=counts[0], by_user=counts[1])
