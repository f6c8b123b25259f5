"""What clients send and get about counts over tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, Field, model_validator

from service.analytics import time_buckets
from service.analytics.time_buckets import Bucket
from service.core.validation import RESOLUTION, DayOrMoment, Id, Input, Period, Text


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
    if name not in time_buckets.zones():
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
            first if first is None or isinstance(first, datetime) else time_buckets.start_of(first, self.zone),
            _after(last) if last is None or isinstance(last, datetime) else time_buckets.end_of(last, self.zone),
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


def _after(moment: datetime | None) -> datetime | None:
    return moment and min(moment, time_buckets.LAST - RESOLUTION) + RESOLUTION
