"""Figures over tasks: what comes in, what goes out, and how they are counted."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field, model_validator

from service import calendars
from service.calendars import Bucket
from service.core.errors import ForbiddenError, InvalidError
from service.core.validation import RESOLUTION, DayOrMoment, Id, Input, Period, Text
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

MOST_BUCKETS = 1000


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


def _zone(name: str) -> str:
    if name not in calendars.zones():
        raise ValueError("takes the name of a time zone: Europe/Berlin")
    return name


class TimeseriesQuery(Input):
    """The period in a time zone, its buckets, and for an administrator whose tasks."""

    bucket: Annotated[Bucket, Field(description="Weeks begin on Monday.")] = "day"
    tz: Annotated[
        Text,
        Field(max_length=100, description="IANA name; dates mean days there.", examples=["Europe/Berlin"]),
        AfterValidator(_zone),
    ] = "UTC"
    start_date: Annotated[
        DayOrMoment, Field(description="A date (the whole day in `tz`) or a timestamp; included.")
    ] = None
    end_date: Annotated[DayOrMoment, Field(description="As start_date; included.")] = None
    user_id: Annotated[Id | None, Field(description="Another's, asked by a user: 403.")] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, before = self.bounds
        # The one day that a zone left out is a period without length.
        if first and before and (first > before or (first == before and self.start_date != self.end_date)):
            raise ValueError("start_date takes a moment that is not after end_date")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The zone that `tz` names."""
        return ZoneInfo(self.tz)

    @property
    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """When the period begins, and what it ends before; held to the calendar."""
        first, last = self.start_date, self.end_date
        return (
            first if first is None or isinstance(first, datetime) else calendars.start_of(first, self.zone),
            _after(last) if last is None or isinstance(last, datetime) else calendars.end_of(last, self.zone),
        )


class TimeBucket(BaseModel):
    """What happened from `start` to the start of the next bucket, within the period."""

    start: datetime
    created: int
    completed: Annotated[int, Field(description="Tasks that became done then, and still are.")]
    hours_to_done_p50: Annotated[float | None, Field(description="Of those: half took no longer.")]
    hours_to_done_p90: Annotated[float | None, Field(description="Of those: nine tenths took no longer.")]


class Timeseries(BaseModel):
    """Every bucket of the period, in order."""

    buckets: list[TimeBucket]


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
    starts = list(islice(calendars.starts(first, before, bucket=query.bucket, zone=query.zone), MOST_BUCKETS + 1))
    if len(starts) > MOST_BUCKETS:
        raise InvalidError(f"there would be more than {MOST_BUCKETS} buckets", pointer="/query/bucket")
    rows = await q.analytics.timeseries(db, **whose, period_from=first, period_before=before, starts=starts)
    # The driver gives the calendar's first moment without its zone.
    return {"buckets": [{**row, "start": start} for row, start in zip(rows, starts, strict=True)]}


def _check(viewer: Viewer, user_id: int | None) -> None:
    if user_id not in (None, viewer.id) and not viewer.is_admin:
        raise ForbiddenError("Only an administrator sees another's figures.")


def _after(moment: datetime | None) -> datetime | None:
    return moment and min(moment, calendars.LAST - RESOLUTION) + RESOLUTION
