"""Translates the verdict of a statement on a task into a row or an error."""

from __future__ import annotations

from typing import Any

from service.core.errors import ForbiddenError, NotFoundError
from service.db.errors import discarded


def permitted(row: Any) -> dict[str, Any]:
    """Return a row whose verdict lets the viewer access its task.

    Raises: NotFoundError if there is no row, ForbiddenError if the verdict is `forbidden`, ConflictError if it is
    `refused`: a trigger that a DBA added has discarded the change.
    """
    if row is None:
        raise NotFoundError("There is no such task.")
    if row["verdict"] == "forbidden":
        raise ForbiddenError("This task belongs to another user.")
    if row["verdict"] == "refused":
        raise discarded("tasks")
    return dict(row)
