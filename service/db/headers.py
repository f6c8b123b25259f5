"""Parses the header of a statement file, and expands a list into one statement for each sort and direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

RETURNS = ("value", "row", "row?", "rows", "stream", "count", "script")
AFTER = re.compile(r"/\* after \*/ (.*)")
SORT = re.compile(r"/\* sort \*/ (.*)")


class HeaderError(Exception):
    """A statement file that breaks the conventions of sql/README.md: its path, the line and the mistake."""


@dataclass(frozen=True)
class Parameter:
    """One `$n`: its keyword in Python, its SQL type, and whether it may be NULL."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class Header:
    """The fields of a statement file's header."""

    sentence: str
    returns: str
    params: tuple[Parameter, ...] = ()
    sorts: dict[str, tuple[tuple[str, str], tuple[str, str]]] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    raises: dict[str, str] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    extension: str = ""
    planned: str = ""
    notifies: str = ""
    why: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    """The first line of each field."""


def split(text: str) -> tuple[Header, str, int]:
    """Split a file into its header, its SQL, and the line where the SQL begins.

    Raises: ValueError with the line of a mistake.
    """
    lines = text.splitlines()
    length = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    comments = [line.removeprefix("--").removeprefix(" ") for line in lines[:length]]
    body = "\n".join(lines[length:]).rstrip().removesuffix(";")
    if not comments or not comments[0].endswith("."):
        raise ValueError("1: takes a comment that says in one sentence what the statement does")
    if not body:
        raise ValueError(f"{length + 1}: takes a statement")
    return _header(comments[0], _fields(comments[1:])), body, length + 1


def _fields(comments: list[str]) -> list[tuple[int, str, str]]:
    fields: list[tuple[int, str, str]] = []
    for line, comment in enumerate(comments, start=2):
        name, colon, value = comment.partition(":")
        if comment.startswith(" ") and fields:
            first_line, field_name, before = fields[-1]
            fields[-1] = (first_line, field_name, f"{before} {comment.strip()}")
        elif colon and name in FIELDS:
            fields.append((line, name, value.strip()))
        else:
            raise ValueError(f"{line}: {comment!r} is not one of the fields {', '.join(FIELDS)}")
    return fields


def _header(sentence: str, fields: list[tuple[int, str, str]]) -> Header:
    values: dict[str, Any] = {}
    for line, name, value in fields:
        try:
            if name == "sort":
                values.setdefault("sorts", {}).update([_sort(value)])
            elif name in values:
                raise ValueError("stands here a second time")
            else:
                values[name] = FIELDS[name](value)
        except ValueError as error:
            raise ValueError(f"{line}: `{name}`: {error}") from None
    if "returns" not in values:
        raise ValueError(f"1: `returns` is missing; it takes one of {', '.join(RETURNS)}")
    return Header(sentence=sentence, lines={name: line for line, name, _ in fields}, **values)


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _returns(text: str) -> str:
    if text not in RETURNS:
        raise ValueError(f"takes one of {', '.join(RETURNS)}")
    return text


def _planned(text: str) -> str:
    if text != "each time":
        raise ValueError("takes `each time`: run it in `Database.snapshot()`")
    return text


def _parameters(text: str) -> tuple[Parameter, ...]:
    parameters = tuple(_parameter(part) for part in _items(text))
    if len({parameter.name for parameter in parameters}) < len(parameters):
        raise ValueError("takes each NAME once")
    return parameters


def _parameter(text: str) -> Parameter:
    name, _, kind = text.partition(" ")
    if not name.isidentifier() or not kind.removesuffix("?"):
        raise ValueError(f"{text!r} takes NAME TYPE")
    return Parameter(name, kind.removesuffix("?"), kind.endswith("?"))


def _raises(text: str) -> dict[str, str]:
    return dict(_constraint_and_code(part) for part in _items(text))


def _constraint_and_code(text: str) -> tuple[str, str]:
    constraint, arrow, code = text.partition(" -> ")
    if not arrow:
        raise ValueError(f"{text!r} takes CONSTRAINT -> CODE")
    return constraint, code


def _sort(text: str) -> tuple[str, tuple[tuple[str, str], tuple[str, str]]]:
    name, _, columns = text.partition(": ")
    pairs = [tuple(column.split(" ")) for column in columns.split(", ")]
    if [len(pair) for pair in pairs] != [2, 2]:
        raise ValueError(f"{text!r} takes NAME: COLUMN TYPE, COLUMN TYPE; the second column is the primary key")
    (column, kind), (key, key_kind) = pairs
    return name, ((column, kind), (key, key_kind))


FIELDS: dict[str, Callable[[str], Any]] = {
    "returns": _returns,
    "params": _parameters,
    "sort": _sort,
    "index": lambda text: tuple(_items(text)),
    "raises": _raises,
    "nullable": lambda text: tuple(_items(text)),
    "scans": lambda text: tuple(_items(text)),
    "extension": str,
    "planned": _planned,
    "notifies": str,
    "why": str,
}
"""The parser of each field that a header may have."""


def expand(header: Header, body: str, line: int) -> Iterator[tuple[str, str]]:
    """Return each sort and direction with its SQL.

    Raises: ValueError with the line of a mistake.
    """
    number = {parameter.name: f"${i}" for i, parameter in enumerate(header.params, start=1)}
    if not {"after_value", "after_id"} <= number.keys():
        raise ValueError(f"{line}: `sort` takes the parameters after_value and after_id")
    value, key = number["after_value"], number["after_id"]
    expected = []
    for name, ((column, kind), (tie, tie_kind)) in header.sorts.items():
        for sign, operator, own, others, direction in (("-", "<=", 1, 0, "desc"), ("", ">=", 0, 1, "asc")):
            row = f"({value}::text::{kind}, {key}::{tie_kind}, {others})"
            after = f"({key}::{tie_kind} is null or ({column}, {tie}, {own}) {operator} {row})"
            order = f"{column} {direction}, {tie} {direction}"
            expected.append((after, order))
            yield f"{sign}{name}", SORT.sub(f"/* sort */ {order}", AFTER.sub(f"/* after */ {after}", body))
    written = (_written(AFTER, body), _written(SORT, body))
    if written != expected[0]:
        raise ValueError(
            "{}: the `after` and `sort` lines take the text of the first sort, descending: {} | {}".format(
                line, *expected[0]
            )
        )


def _written(marker: re.Pattern[str], body: str) -> str:
    """Return the text after a marker, or an empty string unless the same text follows it everywhere."""
    texts = set(marker.findall(body))
    return str(texts.pop()) if len(texts) == 1 else ""
