"""Text, ids and periods as they come from outside."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.core.validation import Future, Id, Input, Period, Text, not_blank

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
NAIVE = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - what hypothesis takes
MOMENTS = st.builds(lambda moment, zone: moment.replace(tzinfo=zone), NAIVE, st.one_of(st.none(), st.just(UTC), ZONES))
DATES = st.dates()
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def bounds(bound: date | datetime | None, *, default: datetime) -> tuple[datetime, datetime]:
    """Return the first and the last microsecond of a date or a timestamp; one without a zone is in UTC."""
    if bound is None:
        return default, default
    if not isinstance(bound, datetime):
        return datetime.combine(bound, time.min, UTC), datetime.combine(bound, time.max, UTC)
    moment = (bound if bound.tzinfo else bound.replace(tzinfo=UTC)).astimezone(UTC)
    return moment, moment


@example(start=None, end=date.max, moment=LAST)
@example(start=date.min, end=date.min, moment=FIRST)
@example(start=date(2025, 5, 24), end=date(2025, 5, 24), moment=datetime(2025, 5, 24, 23, 59, 59, 999999, UTC))
@given(
    start=st.one_of(st.none(), DATES, MOMENTS),
    end=st.one_of(st.none(), DATES, MOMENTS),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_a_period_holds_the_moments_between_its_ends_and_its_ends(
    start: date | datetime | None, end: date | datetime | None, moment: datetime
) -> None:
    values = {"start_date": start and start.isoformat(), "end_date": end and end.isoformat()}
    first, _ = bounds(start, default=FIRST)
    _, last = bounds(end, default=LAST)
    if first > last:
        with pytest.raises(ValidationError, match="start_date"):
            Period.model_validate(values)
        return
    period = Period.model_validate(values)
    for one in {moment, first, last}:
        inside = (not period.start_date or one >= period.start_date) and (not period.end_date or one < period.end_date)
        assert inside is (first <= one <= last)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2025-05-24T14:35:00Z", datetime(2025, 5, 24, 14, 35, tzinfo=UTC)),
        ("2025-05-24t14:35:00z", datetime(2025, 5, 24, 14, 35, tzinfo=UTC)),
        ("2025-05-24 14:35:00", datetime(2025, 5, 24, 14, 35, tzinfo=UTC)),
        ("2025-05-24T14:35:00.25+02:00", datetime(2025, 5, 24, 12, 35, 0, 250_000, UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_read_as_rfc_3339_spells_it(text: str, read: datetime) -> None:
    assert Period.model_validate({"start_date": text}).start_date == read


@pytest.mark.parametrize("name", ["start_date", "end_date"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2025-02-29",
        "2025-13-01",
        "0000-01-01",
        "10000-01-01",
        "2025-5-4",
        "20250524",
        "2025-W21-6",
        "2025-05-24T14:35",
        "2025-05-24T14:35:00+25:00",
        "2025-05-24T14:35:60Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\N{ARABIC-INDIC DIGIT TWO}025-05-24",
        "2025-05-24\n",
        1748044800,
        "2025-05-24T14:35:00Z; drop table tasks",
    ],
)
def test_an_invalid_timestamp_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Period.model_validate({name: value})


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfff"])
def test_text_that_the_database_cannot_store_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="should contain no NUL character and no lone surrogate"):
        TypeAdapter(Text).validate_python(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_text_may_contain_all_other_characters(text: str) -> None:
    assert TypeAdapter(Text).validate_python(text) == text


@pytest.mark.parametrize(("number", "good"), [(0, False), (1, True), (2**63 - 1, True), (2**63, False), (-1, False)])
def test_an_id_is_a_positive_bigint(number: int, good: bool) -> None:
    if good:
        assert TypeAdapter(Id).validate_python(number) == number
    else:
        with pytest.raises(ValidationError):
            TypeAdapter(Id).validate_python(number)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Input.model_validate({"unknown": 1})


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2999-05-24", datetime(2999, 5, 24, tzinfo=UTC)),
        ("2999-05-24T14:35:00", datetime(2999, 5, 24, 14, 35, tzinfo=UTC)),
        ("2999-05-24t14:35:00z", datetime(2999, 5, 24, 14, 35, tzinfo=UTC)),
        ("2999-05-24T14:35:00.25+02:00", datetime(2999, 5, 24, 12, 35, 0, 250_000, UTC)),
        ("2999-05-24 14:35:00-11:30", datetime(2999, 5, 25, 2, 5, tzinfo=UTC)),
        ("9999-12-29T23:59:59.999999Z", datetime(9999, 12, 29, 23, 59, 59, 999_999, UTC)),
        ("9999-12-30T00:59:59+01:00", datetime(9999, 12, 29, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_moment_to_come_is_read_as_rfc_3339_spells_it(text: str, read: datetime) -> None:
    assert TypeAdapter(Future).validate_python(text) == read


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *(
            (text, "should be a moment in the future")
            for text in (
                "2020-05-24",
                "0001-01-01",
                "9999-12-30",
                "9999-12-31T23:59:59.999999Z",
                "9999-12-29T23:00:00-01:00",
            )
        ),
        ("9999-12-31T23:59:59-01:00", "should be a date or timestamp of the calendar"),
        ("0001-01-01T00:00:00+01:00", "should be a date or timestamp of the calendar"),
        ("2999-02-29", "should be a date or timestamp of the calendar"),
        ("", "should be a date"),
        ("10000-01-01", "should be a date"),
        ("2999-05-24T14:35", "should be a date"),
        (32_503_680_000, "should be a date"),
        (True, "should be a date"),
        (None, "valid datetime"),
    ],
)
def test_an_invalid_future_timestamp_is_refused(value: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TypeAdapter(Future).validate_python(value)


def test_now_is_between_what_has_been_and_what_is_to_come() -> None:
    now = datetime.now(UTC)
    before, after = ((now + timedelta(seconds=by)).isoformat() for by in (-1, 600))
    assert TypeAdapter(Future).validate_python(after) == now + timedelta(seconds=600)
    with pytest.raises(ValidationError, match="in the future"):
        TypeAdapter(Future).validate_python(before)


@pytest.mark.parametrize("text", ["", " ", "\t\n\r", "\N{NO-BREAK SPACE}", "\N{EM SPACE}\N{IDEOGRAPHIC SPACE}"])
def test_an_invisible_text_is_blank(text: str) -> None:
    with pytest.raises(ValueError, match="not blank"):
        not_blank(text)


@pytest.mark.parametrize("text", ["x", " x ", "0", "\N{GRINNING FACE}"])
def test_a_visible_text_is_returned_unchanged(text: str) -> None:
    assert not_blank(text) == text
