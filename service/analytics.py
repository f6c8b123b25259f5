"""Figures over tasks: what comes in, what goes out, and how they are counted."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from service.db import Executor
from service.errors import ForbiddenError
from service.queries import q
from service.security import Viewer
from service.values import Id, Period


class AnalyticsQuery(Period):
    """The period, and for an administrator whose tasks."""

    user_id: Annotated[Id | None, Field(description="Another's, asked by a user: 403.")] = None


class ByStatus(BaseModel):
    """How many tasks there are of each status; all three are always there."""

    todo: int
    in_progress: int
    done: int


class Analytics(BaseModel):
    """Tasks created in the period."""

    by_status: ByStatus
    by_user: Annotated[
        dict[str, int], Field(description="By username; who has none is not there.", examples=[{"ada": 12}])
    ]


async def summary(db: Executor, viewer: Viewer, query: AnalyticsQuery) -> Any:
    """Give `{by_status, by_user}` of the tasks that the viewer may see; ForbiddenError for another's."""
    if query.user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's figures.")
    return await q.analytics.summary(
        db,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        user_id=query.user_id,
        created_from=query.start_date,
        created_before=query.end_date,
    )
