"""How many values a body holds, counted while it arrives."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.pipeline.json_limits import MAX_VALUES, JsonValueCounter

texts = st.text(st.sampled_from('",[{}]:\\/\n é🦊x'), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))


def counted(*parts: bytes) -> int:
    values = JsonValueCounter()
    for part in parts:
        values.add(part)
    return values.count


def expected(value: Any) -> int:
    """Count texts, brackets and commas of what was parsed."""
    match value:
        case str():
            return 1
        case dict():
            return 1 + max(len(value) - 1, 0) + len(value) + sum(expected(one) for one in value.values())
        case list():
            return 1 + max(len(value) - 1, 0) + sum(expected(one) for one in value)
    return 0


@given(
    value=values,
    ascii_only=st.booleans(),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    indent=st.sampled_from([None, 1]),
)
def test_the_values_of_a_body_are_counted_in_chunks_of_any_size(
    value: Any, ascii_only: bool, cuts: list[int], indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert counted(*parts) == expected(value)
    assert counted(*(body[n : n + 1] for n in range(len(body)))) == expected(value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_no_json_are_seen_and_texts_are_not(constant: str) -> None:
    valid = json.dumps({constant: [f'"{constant}', 1e5, None, True]}).encode()
    for body, there in ((valid, False), (b"[" + valid + b"," + constant.encode() + b"]", True)):
        values = JsonValueCounter()
        for n in range(len(body)):
            values.add(body[n : n + 1])
        assert values.has_constants == there


@pytest.mark.parametrize("body", [b'"', b"\\", b'"\\', b'\xff\\\\"', b"}{]", b'""""', b""])
def test_invalid_json_is_counted_without_an_error(body: bytes) -> None:
    assert counted(body, body) <= 2 * len(body)


def test_the_maximal_bulk_request_is_far_below_the_value_limit() -> None:
    task = {"title": '",[{' * 25, "description": '",[{' * 2500, "status": "todo", "city": '",[{'}
    assert 2 * counted(json.dumps({"tasks": [task] * 1000}).encode()) < MAX_VALUES
