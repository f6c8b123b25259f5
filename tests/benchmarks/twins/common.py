"""What the twins share: where the data is, whose tasks are read and written, and the models of a plain API."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DATABASE_URL = os.environ.get("TWIN_DATABASE_URL", "")
SECRET_KEY = os.environ.get("TWIN_SECRET_KEY", "")
READER_ID = int(os.environ.get("TWIN_READER_ID", "0"))
AUTHOR_ID = int(os.environ.get("TWIN_AUTHOR_ID", "0"))
POOL_SIZE = 10  # the service's default
ALGORITHM = "HS256"

Status = Literal["todo", "in_progress", "done"]


class NewTask(BaseModel):
    """A task as a client sends it."""

    title: str = Field(min_length=1, max_length=100)
    description: str | None = None
    status: Status = "todo"
    city: str | None = None


class TaskPatch(BaseModel):
    """Changes of a task."""

    title: str | None = Field(None, min_length=1, max_length=100)
    description: str | None = None
    status: Status | None = None
    city: str | None = None


class Task(BaseModel):
    """A task in a response."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    description: str | None
    status: Status
    created_at: datetime
    city: str | None
    weather: dict[str, Any] | None
    user_id: int


class Analytics(BaseModel):
    """Counts of the tasks of a period."""

    by_status: dict[str, int]
    by_user: dict[int, int]
