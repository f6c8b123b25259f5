"""Checks of requests that many routes share, and their common parameters."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, TypeAlias

from fastapi import Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from service.api.headers import headers_of, query_of
from service.core.validation import Id

REPEATED = "Input should appear once"
REPEATABLE_PARAMETERS = {"status"}
JSON = frozenset({"application/json"})
MERGE_PATCH = JSON | {"application/merge-patch+json"}
RowId: TypeAlias = Annotated[Id, Path(description="The id that the service returned.", examples=[1])]


def _no_query(request: Request) -> None:
    if parameters := query_of(request.scope):
        raise RequestValidationError(
            [{"type": "extra_forbidden", "loc": ("query", name), "msg": ""} for name in dict(parameters)]
        )


def _each_once(request: Request) -> None:
    names = [name for name, _ in query_of(request.scope) if name not in REPEATABLE_PARAMETERS]
    if len(names) > len(set(names)):
        raise RequestValidationError(
            [
                {"type": "value_error", "loc": ("query", name), "msg": REPEATED}
                for name, count in Counter(names).items()
                if count > 1
            ]
        )


def media_type(request: HTTPConnection) -> str:
    """Return the media type of the body, in lower case and without parameters; empty if the request names none."""
    return headers_of(request.scope).get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()


def has_body(scope: Scope) -> bool:
    """Return whether the request's headers announce a body."""
    headers = headers_of(scope)
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _json_body(request: Request) -> None:
    if has_body(request.scope) and media_type(request) not in (MERGE_PATCH if request.method == "PATCH" else JSON):
        merge_patch = " or application/merge-patch+json" if request.method == "PATCH" else ""
        raise HTTPException(415, f"The Content-Type of the body should be application/json{merge_patch}.")


def _whole_body() -> None:
    """Do nothing: `endpoint` reads the body."""


no_query = Depends(_no_query)
"""Refuses every query parameter, for a route that has none."""
each_once = Depends(_each_once)
"""Refuses a repeated query parameter, because a client cannot tell which of its values counts."""
json_body = Depends(_json_body)
"""Refuses a body that is not declared as JSON."""
whole_body = Depends(_whole_body)
"""Says that `endpoint` reads the body of a write that needs none: limits of bodies act only while a body is read."""
