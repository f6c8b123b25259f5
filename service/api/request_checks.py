"""What every route refuses, and the parameters that many routes take."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, TypeAlias

from fastapi import Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from service.core.validation import Id

REPEATABLE = {"status"}  # parameters of a query
JSON = frozenset({"application/json"})
MERGE_PATCH = JSON | {"application/merge-patch+json"}
RowId: TypeAlias = Annotated[Id, Path(description="As the service has given it.", examples=[1])]


async def _no_query(request: Request) -> None:
    unknown = [{"type": "extra_forbidden", "loc": ("query", name), "msg": ""} for name in request.query_params]
    if unknown:
        raise RequestValidationError(unknown)


async def _each_once(request: Request) -> None:
    given = Counter(name for name, _ in request.query_params.multi_items() if name not in REPEATABLE)
    repeated = [
        {"type": "value_error", "loc": ("query", name), "msg": "is there more than once"}
        for name, times in given.items()
        if times > 1
    ]
    if repeated:
        raise RequestValidationError(repeated)


def media_type(request: HTTPConnection) -> str:
    """Give the body's media type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def has_body(request: HTTPConnection) -> bool:
    """Say whether a body comes with the request, or may come."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _json_body(request: Request) -> None:
    if has_body(request) and media_type(request) not in (MERGE_PATCH if request.method == "PATCH" else JSON):
        merge_patch = " or application/merge-patch+json" if request.method == "PATCH" else ""
        raise HTTPException(415, f"The body takes Content-Type: application/json{merge_patch}.")


async def _whole_body(request: Request) -> None:
    await request.body()


no_query = Depends(_no_query)
each_once = Depends(_each_once)  # of two values a client would not know which one counts
json_body = Depends(_json_body)
# For a route that takes no body and changes something: the limit speaks only where the body is read, else too late.
whole_body = Depends(_whole_body)
