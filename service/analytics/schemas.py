"""The parameters and responses of counts over tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field, model_validator

from service.analytics import time_buckets
from service.analytics.time_buckets import BucketUnit
from service.core.validation import RESOLUTION, DayOrMoment, Id, Input, Period, Text


class AnalyticsParams(Period):
    """The period and the owner of the tasks to count."""

    user_id: Annotated[Id | None, Field(description="The owner. A user may name only their own id (else 403).")] = None


class ByStatus(BaseModel):
    """The number of tasks of each status, 0 included."""

    todo: int
    in_progress: int
    done: int


class Analytics(BaseModel):
    """The tasks created in the period, counted by status and by owner."""

    by_status: ByStatus
    by_user: Annotated[
        dict[str, int], Field(description="By username, without users who have no task.", examples=[{"ada": 12}])
    ]


def _zone(name: str) -> str:
    if name not in time_buckets.zone_names():
        raise ValueError("Input should be the name of a time zone: Europe/Berlin")
    return name


class TimeseriesParams(Input):
    """The period in a time zone, its buckets, and the owner of the tasks to count."""

    bucket: Annotated[BucketUnit, Field(description="Weeks begin on Monday.")] = "day"
    tz: Annotated[
        Text,
        Field(
            max_length=100, description="An IANA name. A date means that day in this zone.", examples=["Europe/Berlin"]
        ),
        AfterValidator(_zone),
    ] = "UTC"
    start_date: Annotated[
        DayOrMoment, Field(description="A date (the whole day in `tz`) or a timestamp; included.")
    ] = None
    end_date: Annotated[DayOrMoment, Field(description="As `start_date`; included.")] = None
    user_id: Annotated[Id | None, Field(description="The owner. A user may name only their own id (else 403).")] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, before = self.bounds
        # A day that the zone skipped is a valid period without length.
        if first and before and (first > before or (first == before and self.start_date != self.end_date)):
            raise ValueError("start_date should not be after end_date")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The zone that `tz` names."""
        return ZoneInfo(self.tz)

    @property
    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """The start of the period and the moment that it ends before, both within the calendar."""
        first, last = self.start_date, self.end_date
        return (
            first if first is None or isinstance(first, datetime) else time_buckets.start_of_day(first, self.zone),
            _after(last) if last is None or isinstance(last, datetime) else time_buckets.end_of_day(last, self.zone),
        )


class TimeBucket(BaseModel):
    """The counts from `start` to the start of the next bucket, within the period."""

    start: datetime
    created: int
    completed: Annotated[int, Field(description="Tasks that became done in the bucket and still are.")]
    hours_to_done_p50: Annotated[
        float | None, Field(description="The median of the hours from their creation to their completion.")
    ]
    hours_to_done_p90: Annotated[float | None, Field(description="The 90th percentile of those hours.")]


class Timeseries(BaseModel):
    """All buckets of the period, in order."""

    buckets: list[TimeBucket]


def _after(moment: datetime | None) -> datetime | None:
    return moment and min(moment, time_buckets.LAST_MOMENT - RESOLUTION) + RESOLUTION
