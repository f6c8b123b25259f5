"""When days, weeks and months begin, against every minute of them as Python's clocks show it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest

from service.analytics import time_buckets
from service.analytics.time_buckets import BucketUnit, bucket_starts, start_of_day

MINUTE = timedelta(minutes=1)
# Berlin; no hour at midnight (Beirut), none from 23:30 on (Toronto), midnight twice (Havana, Azores), a half hour (Lord
# Howe), a day left out (Apia).
CASES = [
    ("UTC", date(2024, 2, 26)),
    ("Europe/Berlin", date(2025, 3, 28)),
    ("Europe/Berlin", date(2025, 10, 24)),
    ("Asia/Beirut", date(2024, 3, 29)),
    ("America/Toronto", date(1919, 3, 28)),
    ("America/Havana", date(2024, 11, 1)),
    ("Atlantic/Azores", date(2024, 10, 25)),
    ("Australia/Lord_Howe", date(2025, 4, 4)),
    ("Pacific/Apia", date(2011, 12, 28)),
    ("Asia/Kathmandu", date(2025, 12, 30)),
]


def shown(moment: datetime, bucket: BucketUnit) -> date:
    """Return the first day of the bucket that a clock shows."""
    day = moment.date()
    if bucket == "week":
        return date.fromisocalendar(*day.isocalendar()[:2], 1)
    return date(day.year, day.month, 1) if bucket == "month" else day


@pytest.mark.parametrize("bucket", get_args(BucketUnit))
@pytest.mark.parametrize(("name", "day"), CASES)
def test_buckets_are_those_that_clocks_show(name: str, day: date, bucket: BucketUnit) -> None:
    zone = ZoneInfo(name)
    first = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
    minutes = [first + n * MINUTE for n in range(6 * 24 * 60)]
    begun = list(bucket_starts(first, minutes[-1] + MINUTE, unit=bucket, zone=zone))
    expected = [shown(minute.astimezone(zone), bucket) for minute in minutes]
    assert [shown(start.astimezone(zone), bucket) for start in begun] == sorted(set(expected))
    found = [max(start for start in begun if start <= minute) for minute in minutes]
    assert [shown(start.astimezone(zone), bucket) for start in found] == expected
    assert begun[0] <= first


def test_days_of_23_24_and_25_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for day, hours in ((date(2025, 3, 30), 23), (date(2025, 6, 1), 24), (date(2025, 10, 26), 25)):
        assert start_of_day(day + timedelta(days=1), zone) - start_of_day(day, zone) == timedelta(hours=hours)


@pytest.mark.parametrize("bucket", get_args(BucketUnit))
def test_a_period_without_length_has_no_bucket(bucket: BucketUnit) -> None:
    moment = datetime(2025, 5, 24, 12, tzinfo=UTC)
    assert not list(bucket_starts(moment, moment - timedelta(days=100), unit=bucket, zone=ZoneInfo("UTC")))


def test_zones_have_their_iana_names() -> None:
    assert {"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12"} <= time_buckets.zone_names()
    assert (
        not {"", "utc", "europe/berlin", "posixrules", "localtime", "Factory", "../UTC", "America"}
        & time_buckets.zone_names()
    )
