"""How tasks are counted."""

from __future__ import annotations

from itertools import islice
from typing import Any

from service.analytics import time_buckets
from service.analytics.schemas import AnalyticsQuery, TimeseriesQuery
from service.core.errors import ForbiddenError, InvalidError
from service.core.validation import RESOLUTION
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MAX_BUCKETS = 1000


async def summary(db: Executor, viewer: Viewer, query: AnalyticsQuery) -> Any:
    """Give `{by_status, by_user}` of the tasks that the viewer may see; ForbiddenError for another's."""
    _check(viewer, query.user_id)
    return await q.analytics.summary(
        db,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        user_id=query.user_id,
        created_from=query.start_date,
        created_before=query.end_date,
    )


async def timeseries(db: Executor, viewer: Viewer, query: TimeseriesQuery) -> dict[str, Any]:
    """Give `{buckets}` of the period, which goes from the viewer's first task to now where it is open.

    Raises ForbiddenError for another's, InvalidError for a period of more than MOST_BUCKETS.
    """
    _check(viewer, query.user_id)
    whose: dict[str, Any] = {
        "viewer_id": viewer.id,
        "viewer_is_admin": viewer.is_admin,
        "user_id": query.user_id,
    }
    first, before = query.bounds
    if first is None or before is None:
        span = await q.analytics.span(db, **whose)
        first, before = first or span["first_created_at"], before or span["present"] + RESOLUTION
    if first is None or first >= before:
        return {"buckets": []}
    starts = list(islice(time_buckets.starts(first, before, bucket=query.bucket, zone=query.zone), MAX_BUCKETS + 1))
    if len(starts) > MAX_BUCKETS:
        raise InvalidError(f"there would be more than {MAX_BUCKETS} buckets", pointer="/query/bucket")
    rows = await q.analytics.timeseries(db, **whose, period_from=first, period_before=before, starts=starts)
    # The driver gives the calendar's first moment without its zone.
    return {"buckets": [{**row, "start": start} for row, start in zip(rows, starts, strict=True)]}


def _check(viewer: Viewer, user_id: int | None) -> None:
    if user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's figures.")
