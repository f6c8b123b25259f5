"""The history of one task, and its restoration after a deletion."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from loguru import logger
from pydantic import BaseModel, Field

from service.attachments.operations import Attachments
from service.core.errors import ConflictError, NotFoundError
from service.core.pagination import Cursors, NextCursor, PageCursor, PageLimit
from service.core.validation import Input
from service.core.viewer import Viewer
from service.db.pool import Database, Executor
from service.db.queries import q
from service.db.verdicts import permitted
from service.tasks.schemas import Task

PAGE_BYTES = 1024 * 1024
FIELDS = ("id", "type", "task_id", "user_id", "actor_id", "at", "changes", "task")


EventType = Literal["task.created", "task.updated", "task.deleted", "task.restored"]


class HistoryEvent(BaseModel):
    """One committed change of a task."""

    id: int
    type: Annotated[EventType, Field(examples=["task.updated"])]
    task_id: int
    user_id: Annotated[int, Field(description="The task's owner after the change.")]
    actor_id: Annotated[int | None, Field(description="Who made the change; null for one made outside the API.")]
    at: datetime
    changes: Annotated[
        dict[str, list[Any]],
        Field(
            default_factory=dict,
            description="Present in updates: the values of each changed member before and after.",
            examples=[{"status": ["todo", "done"]}],
        ),
    ]
    task: Annotated[Task, Field(description="The task after the change, or as it was before its deletion.")]


class HistoryPage(BaseModel):
    """A page of a task's history."""

    items: list[HistoryEvent]
    next_cursor: NextCursor


class HistoryParams(Input):
    """The page of a task's history."""

    limit: Annotated[PageLimit, Field(description="The size of a page, which has fewer events if they reach 1 MB.")] = (
        20
    )
    cursor: PageCursor = None


async def page(
    db: Executor, viewer: Viewer, task_id: int, params: HistoryParams, *, cursors: Cursors
) -> dict[str, Any]:
    """Return a page of a task's history as `{items, next_cursor}`, the newest first and about 1 MB at most.

    A deleted task keeps its history until its events expire.

    Raises: InvalidError for a cursor of another list, ForbiddenError, NotFoundError if no history is left.
    """
    request = cursors.page(params.cursor, limit=params.limit, bound_to=["history", viewer.id, task_id])
    rows = await q.tasks.history(
        db,
        task_id=task_id,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        before_id=request.after_id,
        row_limit=request.row_limit,
        byte_limit=PAGE_BYTES,
    )
    first = permitted(rows[0] if rows else None)
    events = [_event(row) for row in rows if row["is_event"]]
    return request.cut(events, row_count=first["found_count"])


async def restore(db: Database, viewer: Viewer, task_id: int, *, attachments: Attachments) -> dict[str, Any]:
    """Restore a deleted task as it was, with the attachments whose files still exist, and return it.

    Its version continues.

    Raises: ForbiddenError, ConflictError if it is not deleted or its owner's account no longer exists, NotFoundError if
    it was deleted too long ago or never existed.
    """
    keys = await attachments.restorable_keys(db, viewer, task_id)
    async with db.transaction() as transaction:
        await q.tasks.lock_restoration(transaction, task_id=task_id)
        row = await q.tasks.restore(transaction, task_id=task_id, viewer_id=viewer.id, viewer_is_admin=viewer.is_admin)
        if row and row["verdict"] == "ok":
            await q.attachments.restore(transaction, task_id=task_id, keys=keys)
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
