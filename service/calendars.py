"""Days, weeks and months of a time zone: when each begins, whatever its clocks do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

# What systems have beside them: this machine's own zone, and that of one whose clock nobody has set.
NOT_IANA = {"localtime", "Factory"}

Bucket = Literal["day", "week", "month"]


@cache
def zones() -> frozenset[str]:
    """Give the IANA names of all time zones."""
    return frozenset(available_timezones()) - NOT_IANA


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """Give when a day begins: the first of two midnights, or the end of the gap where clocks skip midnight."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def starts(first: datetime, before: datetime, *, bucket: Bucket, zone: ZoneInfo) -> Iterator[datetime]:
    """Give when the buckets begin that have a part of the period from `first` to before `before`.

    A day that the zone left out, changing sides of the date line, is left out. OverflowError past the calendar.
    """
    day = _first_day(first.astimezone(zone).date(), bucket)
    start, following = start_of(day, zone), _next_day(day, bucket)
    while start < before:
        end = start_of(following, zone)
        if start < end and first < end:
            yield start
        start, following = end, _next_day(following, bucket)


def _first_day(day: date, bucket: Bucket) -> date:
    if bucket == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if bucket == "month" else day


def _next_day(day: date, bucket: Bucket) -> date:
    if bucket == "month":
        return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if bucket == "week" else 1)
