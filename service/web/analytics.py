"""Routes of figures over tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service import analytics
from service.analytics import Analytics, AnalyticsQuery
from service.web import replies
from service.web.deps import In, Known
from service.web.documents import problems

router = APIRouter(prefix="/analytics", tags=["analytics"])


@router.get("", response_model=Analytics, responses=problems(401, 403))
async def get_analytics(rooms: In, viewer: Known, query: Annotated[AnalyticsQuery, Query()]) -> Response:
    """Count the tasks created in a period by status and by owner: one's own, and for an administrator everyone's."""
    return replies.json(await analytics.summary(rooms.db, viewer, query))
