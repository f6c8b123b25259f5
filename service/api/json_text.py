"""Reads JSON and refuses a member that occurs twice, because parsers differ in which one counts (RFC 8259)."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from fastapi.exceptions import RequestValidationError

Path: TypeAlias = tuple[str | int, ...]
TWICE = "Name occurs twice"


class _DuplicateError(Exception):
    """A member occurs twice in one of the objects."""


class _Members(list[tuple[str, Any]]):
    """The members of an object, in their order."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise _DuplicateError
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)
MEMBERS_DECODER = json.JSONDecoder(object_pairs_hook=_Members)


def parse(body: bytes) -> Any:
    """Return the JSON value of a body.

    Raises: RequestValidationError for a member that occurs twice; json.JSONDecodeError, ValueError or RecursionError
    for what is not JSON.
    """
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    try:
        return DECODER.decode(text)
    except _DuplicateError:
        raise duplicates([("body", *path) for path in _duplicate_paths(MEMBERS_DECODER.decode(text))]) from None


def duplicates(places: list[Path]) -> RequestValidationError:
    """Return the error of members or fields that occur twice."""
    return RequestValidationError([{"type": "duplicate", "loc": place, "msg": TWICE} for place in places])


def _duplicate_paths(value: Any) -> list[Path]:
    found: list[Path] = []
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, current = waiting.pop()
        if isinstance(current, _Members):
            names = [name for name, _ in current]
            found += [(*path, name) for name in dict.fromkeys(names) if names.count(name) > 1]
            waiting += [((*path, name), member) for name, member in current]
        elif isinstance(current, list):
            waiting += [((*path, index), item) for index, item in enumerate(current)]
    return sorted(found, key=str)
