"""Conditional requests: the entity tags that a client expects or knows."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from fastapi import Depends, Header
from pydantic import WithJsonSchema

# RFC 9110, section 8.8.3.
ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# A list may have elements that are empty (section 5.6.1).
ENTITY_TAGS = re.compile(rf"([ \t]*,)*[ \t]*{ENTITY_TAG.pattern}([ \t]*,([ \t]*{ENTITY_TAG.pattern})?)*")
TAGS = WithJsonSchema({"type": "string", "examples": ['"1"']})  # a list to us, as a header may be there more than once
VERSION = re.compile(r"[1-9][0-9]{0,17}")


def _tags(lines: list[str]) -> list[tuple[str, str]] | None:
    """Give (weak, opaque part) of each tag, None for `*`; what is no list of tags names none."""
    text = ",".join(lines).strip()
    if text == "*":
        return None
    return ENTITY_TAG.findall(text) if ENTITY_TAGS.fullmatch(text) else []


async def _if_match(
    if_match: Annotated[
        list[str] | None, TAGS, Header(description="Entity tags; 412 where the task has another.")
    ] = None,
    if_none_match: Annotated[
        list[str] | None,
        TAGS,
        Header(description="`*`: 412 where the task is there (RFC 9110, 13.1.2). Tags are not looked at."),
    ] = None,
) -> list[int] | None:
    if if_none_match and _tags(if_none_match) is None:
        return []
    tags = _tags(if_match) if if_match else None
    # RFC 9110, section 13.1.1: compared strongly, so that a weak tag never matches.
    return None if tags is None else [int(tag) for weak, tag in tags if not weak and VERSION.fullmatch(tag)]


IfMatch: TypeAlias = Annotated[list[int] | None, Depends(_if_match)]
"""The versions that `If-Match` expects, none for `If-None-Match: *`; None where any will do."""


async def _if_none_match(
    if_none_match: Annotated[
        list[str] | None, TAGS, Header(description="Entity tags; 304 where it has one of them.")
    ] = None,
) -> list[str] | None:
    tags = _tags(if_none_match or [])
    return None if tags is None else [tag for _, tag in tags]


IfNoneMatch: TypeAlias = Annotated[list[str] | None, Depends(_if_none_match)]
"""The opaque parts of `If-None-Match`, compared weakly; None for any."""
