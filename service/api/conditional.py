"""Conditional requests: the entity tags of `If-Match` and `If-None-Match`."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from fastapi import Depends, Header
from pydantic import WithJsonSchema

# RFC 9110, section 8.8.3.
ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# A list may have empty elements (section 5.6.1).
ENTITY_TAGS = re.compile(rf"([ \t]*,)*[ \t]*{ENTITY_TAG.pattern}([ \t]*,([ \t]*{ENTITY_TAG.pattern})?)*")
# Documented as one string. Declared as a list below, because the header may be repeated.
HEADER_SCHEMA = WithJsonSchema({"type": "string", "examples": ['"1"']})
VERSION = re.compile(r"[1-9][0-9]{0,17}")


def _parse_tags(lines: list[str]) -> list[tuple[str, str]] | None:
    """Return (`W/` or empty, opaque part) of each tag, or None for `*`. Text that is not a list of tags has none."""
    text = ",".join(lines).strip()
    if text == "*":
        return None
    return ENTITY_TAG.findall(text) if ENTITY_TAGS.fullmatch(text) else []


def _if_match(
    if_match: Annotated[
        list[str] | None,
        HEADER_SCHEMA,
        Header(description="Entity tags. The service returns 412 if the task has none of them."),
    ] = None,
    if_none_match: Annotated[
        list[str] | None,
        HEADER_SCHEMA,
        Header(
            description="`*` returns 412 if the task exists (RFC 9110, section 13.1.2). Entity tags have no effect."
        ),
    ] = None,
) -> list[int] | None:
    if if_none_match and _parse_tags(if_none_match) is None:
        return []
    tags = _parse_tags(if_match) if if_match else None
    # RFC 9110, section 13.1.1, demands strong comparison: a weak tag never matches.
    return None if tags is None else [int(tag) for weak, tag in tags if not weak and VERSION.fullmatch(tag)]


IfMatch: TypeAlias = Annotated[list[int] | None, Depends(_if_match)]
"""The versions that `If-Match` accepts, or None if it accepts any; an empty list for `If-None-Match: *`."""


def _if_none_match(
    if_none_match: Annotated[
        list[str] | None,
        HEADER_SCHEMA,
        Header(description="Entity tags. The service returns 304 if the resource has one of them."),
    ] = None,
) -> list[str] | None:
    tags = _parse_tags(if_none_match) if if_none_match else []
    return None if tags is None else [tag for _, tag in tags]


IfNoneMatch: TypeAlias = Annotated[list[str] | None, Depends(_if_none_match)]
"""The opaque parts of the tags of `If-None-Match`, for weak comparison; None for `*`."""
