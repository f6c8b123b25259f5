"""Successful responses: JSON, entity tags, links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

HEAD = "service.head"
"""Where a request's scope says that it is a HEAD, which is handled as a GET."""


def _render(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return dict(value)  # a row: it has keys; TypeError for what has none


def json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Render rows, models and plain values."""
    body = orjson.dumps(content, _render, orjson.OPT_UTC_Z)
    return Response(body, status, headers, "application/json")


def line(content: Any) -> bytes:
    """Render a row or a plain value as a line of its own."""
    return orjson.dumps(content, _render, orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def tag(version: int | str) -> str:
    """Give the entity tag (RFC 9110, section 8.8.3) of a version."""
    return f'"{version}"'


def cached(version: int | str) -> dict[str, str]:
    """Give the headers that let a client keep what it has got and ask whether it has changed."""
    return {"ETag": tag(version), "Cache-Control": "private, no-cache"}


def task(row: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Render a task with its entity tag."""
    return json(row, status=status, headers={**cached(row["version"]), **(headers or {})})


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """Give the header that leads to the next page (RFC 8288), where there is one."""
    if not cursor:
        return {}
    following = request.url.remove_query_params("offset").include_query_params(cursor=cursor)
    return {"Link": f'<{following.path}?{following.query}>; rel="next"'}
