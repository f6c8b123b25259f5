"""Successful responses: JSON, entity tags, links."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote_plus

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

QUERY_CHARACTERS = "%&=+:;,!$'()*/?@"  # RFC 3986, section 3.4, and %
PAGE_PARAMETERS = frozenset({"offset", "cursor"})
HEAD = "service.head"
"""The key by which the scope of a HEAD request says so; its method is GET there."""


class BytesResponse(Response):
    """A whole response. `fields` are its headers, encoded when they are sent: Starlette's constructor takes 4 µs."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str], media_type: str) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.fields = {"content-length": str(len(body)), "content-type": media_type, **headers}

    @cached_property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]  # an attribute of its base
        """The headers as ASGI takes them."""
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.fields.items()]


def _to_json_value(value: Any) -> Any:
    """Return a model or row as a dict. Raises TypeError for a value that is neither."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return dict(value)


def json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response of rows, models and plain values."""
    body = orjson.dumps(content, _to_json_value, orjson.OPT_UTC_Z)
    return BytesResponse(body, status, headers or {}, "application/json")


def json_line(content: Any) -> bytes:
    """Return a row or a plain value as one line of JSON."""
    return orjson.dumps(content, _to_json_value, orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def entity_tag(version: int | str) -> str:
    """Return the entity tag (RFC 9110, section 8.8.3) of a version."""
    return f'"{version}"'


def cache_headers(version: int | str) -> dict[str, str]:
    """Return the headers by which a client may keep a response and ask whether it has changed."""
    return {"ETag": entity_tag(version), "Cache-Control": "private, no-cache"}


def task(row: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a task with its entity tag."""
    return json(row, status=status, headers={**cache_headers(row["version"]), **(headers or {})})


def next_link(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) to the next page of a list; no header on the last page."""
    if not cursor:
        return {}
    parts = request.scope["query_string"].decode("latin-1").split("&")
    kept = [part for part in parts if part and unquote_plus(part.partition("=")[0]) not in PAGE_PARAMETERS]
    query = quote("&".join([*kept, f"cursor={cursor}"]), safe=QUERY_CHARACTERS)
    return {"Link": f'<{quote(request.scope["path"])}?{query}>; rel="next"'}
