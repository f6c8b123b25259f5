"""Cursors: they come back as they were made, and only to the list that made them, unchanged."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidError
from service.core.pagination import Cursors

CURSORS = Cursors(("a" * 32,))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
IDS = st.integers(1, 2**63 - 1)
MOMENTS = st.datetimes(timezones=st.just(UTC))
BOUND = ["-created_at", {"viewer_id": 1, "status": ["done"], "created_from": datetime(2025, 5, 24, tzinfo=UTC)}]
CURSOR = CURSORS.make(value="Prepare Report", key=17, bound_to=BOUND)


@given(value=st.one_of(TEXTS, IDS, MOMENTS), key=IDS, bound_to=st.lists(st.one_of(TEXTS, IDS, MOMENTS, st.none())))
def test_a_cursor_comes_back_as_it_was_made(value: str | int | datetime, key: int, bound_to: list[object]) -> None:
    cursor = CURSORS.make(value=value, key=key, bound_to=bound_to)
    text, read = CURSORS.read(cursor, bound_to=bound_to)
    assert read == key
    assert (datetime.fromisoformat(text) if isinstance(value, datetime) else text) == (
        value if isinstance(value, datetime) else str(value)
    )


@given(value=TEXTS, key=IDS)
def test_a_cursor_is_safe_in_a_url(value: str, key: int) -> None:
    assert set(CURSORS.make(value=value, key=key, bound_to=None)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


def raw(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


@pytest.mark.parametrize("bit", range(len(raw(CURSOR)) * 8))
def test_a_cursor_with_any_bit_flipped_is_refused(bit: int) -> None:
    signed = bytearray(raw(CURSOR))
    signed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidError):
        CURSORS.read(base64.urlsafe_b64encode(signed).decode().rstrip("="), bound_to=BOUND)


@given(st.text())
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        CURSORS.read(text, bound_to=BOUND)
    assert refused.value.pointer == "/query/cursor"


@pytest.mark.parametrize(
    "bound_to",
    [
        ["created_at", BOUND[1]],
        ["-created_at", {**BOUND[1], "viewer_id": 2}],  # type: ignore[dict-item]
        ["-created_at", {**BOUND[1], "status": None}],  # type: ignore[dict-item]
        ["-created_at", {**BOUND[1], "created_from": datetime(2025, 5, 25, tzinfo=UTC)}],  # type: ignore[dict-item]
        None,
    ],
)
def test_a_cursor_of_another_list_is_refused(bound_to: object) -> None:
    assert CURSORS.read(CURSOR, bound_to=BOUND) == ("Prepare Report", 17)
    with pytest.raises(InvalidError):
        CURSORS.read(CURSOR, bound_to=bound_to)


def test_cursors_of_the_previous_key_are_accepted_after_a_rotation() -> None:
    rotated = Cursors(("b" * 32, "a" * 32))
    assert rotated.read(CURSOR, bound_to=BOUND) == ("Prepare Report", 17)
    with pytest.raises(InvalidError):
        CURSORS.read(rotated.make(value="x", key=1, bound_to=BOUND), bound_to=BOUND)
