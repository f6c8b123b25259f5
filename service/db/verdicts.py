"""What a statement's verdict on a task means."""

from __future__ import annotations

from typing import Any

from service.core.errors import ForbiddenError, NotFoundError


def permitted(row: Any) -> dict[str, Any]:
    """Give a row that has a verdict on its task; NotFoundError where there is none, ForbiddenError."""
    if row is None:
        raise NotFoundError("There is no such task.")
    if row["verdict"] == "forbidden":
        raise ForbiddenError("This task is another's.")
    return dict(row)
