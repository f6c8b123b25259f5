"""Input types that several packages share: text, ids, timestamps and periods."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import core_schema

MAX_ID = 2**63 - 1
LAST_MOMENT = datetime(9999, 12, 30, tzinfo=UTC)  # as in the database's schema
MAX_FIELDS = 100
RESOLUTION = timedelta(microseconds=1)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)?)?", re.ASCII)
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,30}", re.ASCII)
# White space (as str.strip), then what shows nothing: zero-width characters, controls of the direction, fillers, and
# selectors of variants.
BLANK = (
    r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
VISIBLE_CHARACTER = re.compile(f"[^{BLANK}]")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL's type text stores neither


def _check_storable(text: str) -> str:
    if UNSTORABLE.search(text):
        raise ValueError("Input should contain no NUL character and no lone surrogate")
    return text


@dataclass(frozen=True)
class Documented:
    """The pattern by which the OpenAPI document describes a validator of texts."""

    pattern: str

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}


Text: TypeAlias = Annotated[str, AfterValidator(_check_storable), Documented(r"^[^\u0000]*$")]


def not_blank(text: str) -> str:
    """Return the text. Raises ValueError if it is blank."""
    if not VISIBLE_CHARACTER.search(text):
        raise ValueError("Input should be a text that is not blank")
    return text


VISIBLE = Documented(rf"^[^\u0000]*[^\u0000{BLANK}][^\u0000]*$")


def _check_digits(value: object) -> object:
    if isinstance(value, str) and not WHOLE_NUMBER.fullmatch(value):
        raise ValueError("Input should be a whole number")
    return value


AS_DIGITS = BeforeValidator(_check_digits)  # after Field: the OpenAPI document would omit bounds before it
Id: TypeAlias = Annotated[int, Field(ge=1, le=MAX_ID), AS_DIGITS]


def omit_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults from the JSON schema of a model: client generators demand a member that has one."""
    for member in schema.get("properties", {}).values():
        member.pop("default", None)


ALWAYS_SENT = ConfigDict(json_schema_serialization_defaults_required=True, json_schema_extra=omit_defaults)
"""The configuration of a response whose members with a default are always sent: its schema requires them."""


class Input(BaseModel):
    """The base of all input models; it refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=omit_defaults)

    @model_validator(mode="before")
    @classmethod
    def _check_field_count(cls, fields: object) -> object:
        if isinstance(fields, dict) and len(fields) > MAX_FIELDS:
            raise ValueError(f"Input should have at most {MAX_FIELDS} members")  # one error: one per field takes long
        return fields


def _parse(text: object) -> date | datetime:
    if not isinstance(text, str) or not MOMENT.fullmatch(text):
        raise ValueError(
            "Input should be a date (2025-05-24) or an RFC 3339 timestamp (2025-05-24T14:35:00Z, + as %2B)"
        )
    try:
        if len(text) == len("2025-05-24"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text.upper())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("Input should be a date or timestamp of the calendar, from year 1 to 9999") from None


def _start_of_day(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _parse_start(value: object) -> datetime | None:
    if value is None:
        return None
    moment = _parse(value)
    return moment if isinstance(moment, datetime) else _start_of_day(moment)


def _parse_end(value: object) -> datetime | None:
    if value is None:
        return None
    moment = _parse(value)
    try:
        if isinstance(moment, datetime):
            return moment + RESOLUTION
        return _start_of_day(moment + timedelta(days=1))
    except OverflowError:
        return None


def _check_future(moment: datetime) -> datetime:
    if not datetime.now(UTC) < moment < LAST_MOMENT:
        raise ValueError("Input should be a moment in the future, until the year 9999")
    return moment


Future: TypeAlias = Annotated[datetime, BeforeValidator(_parse_start), AfterValidator(_check_future)]

_SCHEMA = {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
_DESCRIPTION = "A date (the whole day in UTC) or an RFC 3339 timestamp (exact; UTC if it has no zone). Included."


DayOrMoment: TypeAlias = Annotated[date | None, PlainValidator(_parse), WithJsonSchema(_SCHEMA)]
"""A date, whose time zone another parameter names, or a datetime in UTC."""


class Period(Input):
    """The period in which tasks were created: both ends are included, and a missing end leaves it open.

    After validation `end_date` is the first moment after the period, at the database's resolution of 1 µs.
    """

    start_date: Annotated[
        datetime | None,
        BeforeValidator(_parse_start),
        WithJsonSchema(_SCHEMA),
        Field(description=f"Created from. {_DESCRIPTION}"),
    ] = None
    end_date: Annotated[
        datetime | None,
        BeforeValidator(_parse_end),
        WithJsonSchema(_SCHEMA),
        Field(description=f"Created until. {_DESCRIPTION}"),
    ] = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.start_date and self.end_date and self.start_date >= self.end_date:
            raise ValueError("start_date should not be after end_date")
        return self
