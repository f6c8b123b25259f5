"""Errors as RFC 9457 problems: the one table of codes, statuses and details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from service.api.responses import tag
from service.core import errors, logs

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidError: 422,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.PreconditionFailedError: 412,
    errors.TooLargeError: 413,
    errors.RateLimitedError: 429,
    errors.UnavailableError: 503,
}
"""The status of each code; an error's class is looked up along its bases."""
CODES = {
    400: "malformed",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid",
    500: "internal",
    503: "unavailable",
}
DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not take this method; `Allow` says which it takes.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or has too many values in it.",
    400: "The body cannot be read.",
    416: "The file does not reach that far; `Content-Range` says how far it does.",
    500: "Something went wrong here. The request id leads to it in the log.",
}
# RFC 9110's names, which Python's releases do not agree on.
PHRASES = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
INVALID = "Some values do not hold; `errors` says which."
MAX_ERRORS = 100


class FieldError(BaseModel):
    """One value that was refused."""

    pointer: Annotated[str, Field(description="RFC 6901, into the body; `/query/…`, `/path/…`, `/header/…` elsewhere.")]
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(examples=["about:blank"])] = "about:blank"
    title: Annotated[str, Field(examples=["Not Found"])]
    status: Annotated[int, Field(examples=[404])]
    detail: Annotated[str, Field(examples=["There is no such task."])]
    code: Annotated[str, Field(description="Stable, for machines.", examples=["not_found"])]
    request_id: str
    errors: Annotated[list[FieldError] | None, Field(description="On 422: every value that was refused.")] = None


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    fields: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """Render an error."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": PHRASES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code or CODES.get(status, "error"),
        "request_id": logs.request_id.get(),
    }
    if fields is not None:
        content["errors"] = fields
    return Response(orjson.dumps(content), status, headers, "application/problem+json")


async def on_service_error(_request: HTTPConnection, error: Exception) -> Response:
    """Answer a ServiceError with its code's status."""
    assert isinstance(error, errors.ServiceError)
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers, fields = {}, None
    match error:
        case errors.InvalidError():
            fields = [{"pointer": error.pointer, "message": error.detail}]
            return problem(status, INVALID, code=error.code, fields=fields)
        case errors.UnauthorizedError():
            headers = {"WWW-Authenticate": "Bearer"}
        case errors.PreconditionFailedError():
            headers = {"ETag": tag(error.version)}
        case errors.RateLimitedError():
            headers = {"Retry-After": str(error.retry_after)}
        case errors.UnavailableError():
            headers = {"Retry-After": str(error.retry_after)}
            logger.bind(cause=repr(error.__cause__)).warning("unavailable: {}", error.detail)
    return problem(status, error.detail, code=error.code, headers=headers, fields=fields)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework refused."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and (methods := _methods(request)):
        error.headers = {"Allow": ", ".join(methods)}
    return problem(error.status_code, DETAILS.get(error.status_code, error.detail), headers=error.headers)


def _methods(request: Request) -> list[str]:
    """Give all methods of the path; the framework names those of the first route alone."""
    path = getattr(request.scope.get("route"), "path_format", "")
    methods = {method.upper() for method in request.app.openapi()["paths"].get(path, {})}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def on_invalid_request(_request: Request, error: Exception) -> Response:
    """Answer a request whose values do not hold: 400 where it is no JSON at all, else 422 with a pointer to each."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problem(400, "The body is not JSON.")
    fields = [{"pointer": _pointer(one["loc"]), "message": _message(one)} for one in found[:MAX_ERRORS]]
    return problem(422, INVALID, fields=fields)


def _pointer(location: Sequence[Any]) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1")[:200] for part in location]
    if parts and parts[0] == "body":
        parts = parts[1:]
    return "".join(f"/{part}" for part in parts).encode(errors="replace").decode()


def _message(one: Mapping[str, Any]) -> str:
    if one["type"] == "extra_forbidden":
        return "is not known here"
    if one["type"] == "missing" and one["loc"] == ("body",):
        return "a body is needed"
    if one["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return "takes a JSON object"
    message = str(one["msg"]).removeprefix("Value error, ")
    if isinstance(one.get("input"), str):  # of a text that is validated further the library says "items"
        message = message.replace(" items after validation", " characters").replace(
            " item after validation", " character"
        )
    return message.encode(errors="replace").decode()
