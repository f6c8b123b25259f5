"""What has happened to one task, as its events say, and how the last of them brings back one that is gone."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from loguru import logger
from pydantic import BaseModel, Field

from service.attachments.operations import Attachments
from service.core.errors import ConflictError, NotFoundError
from service.core.pagination import Cursors
from service.core.validation import AS_DIGITS, Input
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.db.verdicts import permitted
from service.tasks.schemas import Task

PAGE_BYTES = 1024 * 1024
FIELDS = ("id", "type", "task_id", "user_id", "actor_id", "at", "changes", "task")


class HistoryEvent(BaseModel):
    """One committed change of a task."""

    id: int
    type: Annotated[str, Field(examples=["task.updated"])]
    task_id: int
    user_id: Annotated[int, Field(description="The task's owner, after the change.")]
    actor_id: Annotated[int | None, Field(description="Who made it; null for a change made past the API.")]
    at: datetime
    changes: Annotated[
        dict[str, list[Any]] | None,
        Field(description="On updates alone: value before, value after.", examples=[{"status": ["todo", "done"]}]),
    ] = None
    task: Annotated[Task, Field(description="After the change; the last one of a task that is gone.")]


class HistoryPage(BaseModel):
    """A page of a task's history."""

    items: list[HistoryEvent]
    next_cursor: Annotated[str | None, Field(description="Gives the next page; null on the last one.")]


class HistoryQuery(Input):
    """Page of a task's history."""

    limit: Annotated[
        int, Field(ge=1, le=100, description="Of a page, which has fewer where they come to 1 MB."), AS_DIGITS
    ] = 20
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before.")] = None


async def page(db: Executor, viewer: Viewer, task_id: int, query: HistoryQuery, *, cursors: Cursors) -> dict[str, Any]:
    """Give a page `{items, next_cursor}`, the newest first, of a deleted task too, some 1 MB at most.

    Raises InvalidError for a foreign cursor, ForbiddenError, and NotFoundError where nothing is left of the task.
    """
    bound_to = ["history", viewer.id, task_id]
    before = cursors.read(query.cursor, bound_to=bound_to)[1] if query.cursor is not None else None
    rows = await q.tasks.history(
        db,
        task_id=task_id,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        before_id=before,
        row_limit=query.limit + 1,
        byte_limit=PAGE_BYTES,
    )
    first = permitted(rows[0] if rows else None)
    items = [_event(row) for row in rows if row["is_event"]][: query.limit]
    last = items[-1]["id"] if items and first["found_count"] > len(items) else None
    return {"items": items, "next_cursor": last and cursors.make(value=last, key=last, bound_to=bound_to)}


async def restore(db: Database, viewer: Viewer, task_id: int, *, attachments: Attachments) -> dict[str, Any]:
    """Bring a deleted task back as it was, and give it; its version goes on. Attachments come as far as they are there.

    Raises ForbiddenError, ConflictError where it is not deleted or its owner's account is gone, and NotFoundError where
    nothing is left of it or it was deleted too long ago.
    """
    there = await attachments.still_there(db, viewer, task_id)
    async with db.transaction() as transaction:
        await q.tasks.lock_restoration(transaction, task_id=task_id)
        row = await q.tasks.restore(transaction, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
        if row and row["verdict"] == "ok":
            await q.attachments.restore(transaction, task_id=task_id, keys=there)
    task = permitted(row)
    match task.pop("verdict"):
        case "present":
            raise ConflictError("This task is not deleted.")
        case "ownerless":
            raise ConflictError("The account that this task belonged to no longer exists.")
        case "gone":
            raise NotFoundError("This task was deleted too long ago.")
    logger.bind(task_id=task_id, actor_id=viewer.id, version=task["version"]).info("task restored")
    return task


def _event(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in FIELDS if name != "changes" or row[name] is not None}
