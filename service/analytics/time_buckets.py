"""The starts of days, weeks and months in a time zone, across every change of its clocks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import chain, pairwise
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

# Systems list these beside the IANA names: the machine's own zone, and that of a machine without one.
NOT_IANA = {"localtime", "Factory"}

SECOND = timedelta(seconds=1)
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)

BucketUnit = Literal["day", "week", "month"]


@cache
def zone_names() -> frozenset[str]:
    """Return the IANA names of all time zones."""
    return frozenset(available_timezones()) - NOT_IANA


def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """Return the start of a day: the first of two midnights, or the end of the gap if the clocks skip midnight.

    A start outside the calendar becomes FIRST_MOMENT or LAST_MOMENT.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    try:
        by_clocks_before = midnight.astimezone(UTC)
        by_clocks_after = midnight.replace(fold=1).astimezone(UTC)
    except OverflowError:
        return FIRST_MOMENT if day.year == 1 else LAST_MOMENT
    if by_clocks_before <= by_clocks_after:
        return by_clocks_before
    seconds = range((by_clocks_before - by_clocks_after) // SECOND)
    return by_clocks_after + SECOND * bisect_left(
        seconds, day, key=lambda n: (by_clocks_after + n * SECOND).astimezone(zone).date()
    )


def end_of_day(day: date, zone: ZoneInfo) -> datetime:
    """Return the start of the next day."""
    return LAST_MOMENT if day == date.max else start_of_day(day + timedelta(days=1), zone)


def bucket_starts(first: datetime, before: datetime, *, unit: BucketUnit, zone: ZoneInfo) -> Iterator[datetime]:
    """Return the starts of all buckets that overlap the period from `first` to before `before`.

    A day that the zone skipped when it crossed the date line has no bucket.
    """
    days = _first_days(_day_of(first, zone), unit)
    for start, end in pairwise(chain((start_of_day(day, zone) for day in days), [LAST_MOMENT])):
        if start >= before:
            return
        if start < end and first < end:
            yield start


def _day_of(moment: datetime, zone: ZoneInfo) -> date:
    try:
        return moment.astimezone(zone).date()
    except OverflowError:
        return date.min if moment.year == 1 else date.max


def _first_days(day: date, unit: BucketUnit) -> Iterator[date]:
    """Return the first day of the bucket that contains `day`, and of all later buckets."""
    day = _first_day(day, unit)
    with suppress(OverflowError):
        while True:
            yield day
            day = _next_day(day, unit)


def _first_day(day: date, unit: BucketUnit) -> date:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _next_day(day: date, unit: BucketUnit) -> date:
    if unit == "month":
        return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if unit == "week" else 1)
