"""The counts over tasks, in total and by time."""

from __future__ import annotations

from itertools import islice
from typing import Any

from service.analytics import time_buckets
from service.analytics.schemas import AnalyticsParams, TimeseriesParams
from service.core.errors import ForbiddenError, InvalidError
from service.core.validation import RESOLUTION
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MAX_BUCKETS = 1000


async def summary(db: Executor, viewer: Viewer, params: AnalyticsParams) -> Any:
    """Return `{by_status, by_user}` of the tasks that the viewer may see.

    Raises: ForbiddenError for another user's tasks.
    """
    _check(viewer, params.user_id)
    return await q.analytics.summary(
        db,
        viewer_id=viewer.id,
        viewer_is_admin=viewer.is_admin,
        user_id=params.user_id,
        created_from=params.start_date,
        created_before=params.end_date,
    )


async def timeseries(db: Executor, viewer: Viewer, params: TimeseriesParams) -> dict[str, Any]:
    """Return `{buckets}` of the period.

    An open start becomes the creation of the first visible task, an open end the present.

    Raises: ForbiddenError for another user's tasks, InvalidError for more than MAX_BUCKETS buckets.
    """
    _check(viewer, params.user_id)
    visible: dict[str, Any] = {
        "viewer_id": viewer.id,
        "viewer_is_admin": viewer.is_admin,
        "user_id": params.user_id,
    }
    first, before = params.bounds
    if first is None or before is None:
        span = await q.analytics.span(db, **visible)
        first, before = first or span["first_created_at"], before or span["present"] + RESOLUTION
    if first is None or first >= before:
        return {"buckets": []}
    starts = list(
        islice(time_buckets.bucket_starts(first, before, unit=params.bucket, zone=params.zone), MAX_BUCKETS + 1)
    )
    if len(starts) > MAX_BUCKETS:
        raise InvalidError(
            f"Input should divide the period into at most {MAX_BUCKETS} buckets", pointer="/query/bucket"
        )
    rows = await q.analytics.timeseries(db, **visible, period_from=first, period_before=before, starts=starts)
    # The driver returns the first moment of the calendar without its zone.
    return {"buckets": [{**row, "start": start} for row, start in zip(rows, starts, strict=True)]}


def _check(viewer: Viewer, user_id: int | None) -> None:
    if user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's statistics.")
