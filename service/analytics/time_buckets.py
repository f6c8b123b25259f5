"""Days, weeks and months of a time zone: when each begins, whatever its clocks do."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import chain, pairwise
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

# What systems have beside them: this machine's own zone, and that of one whose clock nobody has set.
NOT_IANA = {"localtime", "Factory"}

SECOND = timedelta(seconds=1)
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)

Bucket = Literal["day", "week", "month"]


@cache
def zones() -> frozenset[str]:
    """Give the IANA names of all time zones."""
    return frozenset(available_timezones()) - NOT_IANA


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """Give when a day begins: the first of two midnights, or the end of the gap where clocks skip midnight.

    FIRST or LAST where that is not in the calendar.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    try:
        by_clocks_before = midnight.astimezone(UTC)
        by_clocks_after = midnight.replace(fold=1).astimezone(UTC)
    except OverflowError:
        return FIRST if day.year == 1 else LAST
    if by_clocks_before <= by_clocks_after:
        return by_clocks_before
    seconds = range((by_clocks_before - by_clocks_after) // SECOND)
    return by_clocks_after + SECOND * bisect_left(
        seconds, day, key=lambda n: (by_clocks_after + n * SECOND).astimezone(zone).date()
    )


def end_of(day: date, zone: ZoneInfo) -> datetime:
    """Give when the day after begins."""
    return LAST if day == date.max else start_of(day + timedelta(days=1), zone)


def starts(first: datetime, before: datetime, *, bucket: Bucket, zone: ZoneInfo) -> Iterator[datetime]:
    """Give when the buckets begin that have a part of the period from `first` to before `before`.

    A day that the zone left out, changing sides of the date line, is left out.
    """
    days = _first_days(_day_of(first, zone), bucket)
    for start, end in pairwise(chain((start_of(day, zone) for day in days), [LAST])):
        if start >= before:
            return
        if start < end and first < end:
            yield start


def _day_of(moment: datetime, zone: ZoneInfo) -> date:
    try:
        return moment.astimezone(zone).date()
    except OverflowError:
        return date.min if moment.year == 1 else date.max


def _first_days(day: date, bucket: Bucket) -> Iterator[date]:
    """Give the first day of the bucket that has `day`, and of all that follow."""
    day = _first_day(day, bucket)
    with suppress(OverflowError):
        while True:
            yield day
            day = _next_day(day, bucket)


def _first_day(day: date, bucket: Bucket) -> date:
    if bucket == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if bucket == "month" else day


def _next_day(day: date, bucket: Bucket) -> date:
    if bucket == "month":
        return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if bucket == "week" else 1)
