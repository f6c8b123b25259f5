"""Errors as RFC 9457 problems: the one table of codes, and the responses made from it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from service.api.responses import BytesResponse, entity_tag
from service.core import errors, logs
from service.core.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100
# In the style of pydantic's messages, which stand beside them.
UNKNOWN_NAME, FIELD_REQUIRED, BODY_REQUIRED = "Unknown name", "Field required", "Body required"
NOT_AN_OBJECT = "Input should be a JSON object"
NOT_JSON = "The body is not JSON."


class ProblemType(NamedTuple):
    """The status, the title (RFC 9110) and the default detail of an error code."""

    status: int
    title: str
    detail: str


PROBLEM_TYPES = {
    "malformed": ProblemType(400, "Bad Request", "The request cannot be read."),
    "unauthorized": ProblemType(401, "Unauthorized", "A valid token or API key is required."),
    "forbidden": ProblemType(403, "Forbidden", "This account may not do this."),
    "not_found": ProblemType(404, "Not Found", "There is nothing at this path."),
    "method_not_allowed": ProblemType(
        405, "Method Not Allowed", "This path does not accept this method; `Allow` lists those that it accepts."
    ),
    "request_timeout": ProblemType(408, "Request Timeout", "The request did not arrive in time."),
    "conflict": ProblemType(409, "Conflict", "The request conflicts with the present state."),
    "stale": ProblemType(412, "Precondition Failed", "The task has another version; `ETag` is its present one."),
    "too_large": ProblemType(413, "Content Too Large", "The body is too large, or holds too many values."),
    "quota_exceeded": ProblemType(413, "Content Too Large", "The file exceeds what is left of the user's quota."),
    "unsupported_media_type": ProblemType(
        415, "Unsupported Media Type", "The route does not accept the body's Content-Type or Content-Encoding."
    ),
    "range_not_satisfiable": ProblemType(
        416, "Range Not Satisfiable", "The range begins after the end of the file; `Content-Range` has its size."
    ),
    "invalid": ProblemType(422, "Unprocessable Content", "Some values are invalid; `errors` names them."),
    "upgrade_required": ProblemType(426, "Upgrade Required", "This path serves WebSockets only."),
    "rate_limited": ProblemType(429, "Too Many Requests", "Too many requests."),
    "request_header_fields_too_large": ProblemType(
        431, "Request Header Fields Too Large", "The request's headers are too large."
    ),
    "internal": ProblemType(
        500, "Internal Server Error", "An unexpected error occurred; the log has it under this request id."
    ),
    "unavailable": ProblemType(503, "Service Unavailable", "The database is unavailable or busy."),
}
CODES = {problem_type.status: code for code, problem_type in reversed(PROBLEM_TYPES.items())}
"""The code of each status: the first one of the table if several codes share the status."""


class FieldError(BaseModel):
    """One invalid value."""

    pointer: Annotated[
        str,
        Field(
            description="RFC 6901 pointer into the body; values elsewhere begin with `/query/`, `/path/` or `/header/`."
        ),
    ]
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: Literal["about:blank"]
    title: Annotated[str, Field(examples=["Not Found"])]
    status: Annotated[int, Field(examples=[404])]
    detail: Annotated[str, Field(examples=["There is no such task."])]
    code: Annotated[
        str,
        Field(
            description="A stable name for programs.",
            examples=["not_found"],
            json_schema_extra={"enum": list(PROBLEM_TYPES)},
        ),
    ]
    request_id: Annotated[str, Field(description="The value of `X-Request-ID`, which the log has too.")]
    errors: Annotated[
        list[FieldError], Field(default_factory=list, description="The invalid values; present if the status is 422.")
    ]


def content(code: str, detail: str | None = None, *, request_id: str) -> dict[str, Any]:
    """Return the members of a problem; `detail` defaults to that of the code."""
    status, title, default = PROBLEM_TYPES[code]
    members = {"type": "about:blank", "title": title, "status": status, "detail": detail or default, "code": code}
    return members | {"request_id": request_id}


def problem(
    code: str,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    fields: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """Return the response of an error; `fields` are the members of `errors`."""
    members = content(code, detail, request_id=logs.request_id.get())
    if fields is not None:
        members["errors"] = fields
    return BytesResponse(orjson.dumps(members), members["status"], headers or {}, MEDIA_TYPE)


def raw_problem(
    code: str, detail: str | None = None, *, request_id: str | None = None, retry_after: int | None = None
) -> bytes:
    """Return a problem as the bytes of an HTTP/1.1 response, for a connection without a readable request."""
    request_id = request_id or secrets.token_hex(16)
    members = content(code, detail, request_id=request_id)
    body = orjson.dumps(members)
    head = [
        f"HTTP/1.1 {members['status']} {members['title']}",
        *([] if retry_after is None else [f"retry-after: {retry_after}"]),
        "connection: close",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "x-content-type-options: nosniff",
        f"x-request-id: {request_id}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def logged_raw_problem(code: str, detail: str | None = None) -> bytes:
    """Log a refusal under a new request id, and return it as a raw problem."""
    request_id = secrets.token_hex(16)
    members = content(code, detail, request_id=request_id)
    token = logs.request_id.set(request_id)
    logger.bind(status=members["status"], detail=members["detail"]).warning("request refused")
    logs.request_id.reset(token)
    return raw_problem(code, detail, request_id=request_id)


def of_error(error: Exception) -> Response:
    """Return the response of an error that a route, a check or a limit raised, or that nobody expects."""
    if isinstance(error, ServiceError):
        return _of_service_error(error)
    if isinstance(error, RequestValidationError):
        return _of_invalid_request(error)
    if isinstance(error, HTTPException):
        return _of_http_exception(error)
    return problem("internal")


def _of_service_error(error: ServiceError) -> Response:
    headers = {}
    match error:
        case errors.InvalidError():
            return problem(error.code, fields=[{"pointer": error.pointer, "message": error.detail}])
        case errors.UnauthorizedError():
            headers = {"WWW-Authenticate": "Bearer"}
        case errors.PreconditionFailedError():
            headers = {"ETag": entity_tag(error.version)}
        case errors.RateLimitedError():
            headers = {"Retry-After": str(error.retry_after)}
        case errors.UnavailableError():
            headers = {"Retry-After": str(error.retry_after)}
            logger.bind(detail=error.detail, cause=repr(error.__cause__)).warning("service unavailable")
    return problem(error.code, error.detail, headers=headers)


def _of_http_exception(error: HTTPException) -> Response:
    code = CODES[error.status_code]
    # A detail that only repeats the status, under the name of RFC 9110 or of this Python's release, says nothing.
    is_phrase = error.detail in {PROBLEM_TYPES[code].title, HTTPStatus(error.status_code).phrase}
    return problem(code, None if is_phrase else error.detail, headers=error.headers)


def _of_invalid_request(error: RequestValidationError) -> Response:
    """Return 400 for a body that is not JSON, and else 422 with a pointer to each invalid value."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problem("malformed", NOT_JSON)
    fields = [{"pointer": _pointer(one["loc"]), "message": _message(one)} for one in found[:MAX_ERRORS]]
    return problem("invalid", fields=fields)


def _pointer(location: Sequence[Any]) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1")[:200] for part in location]
    if parts and parts[0] == "body":
        parts = parts[1:]
    return "".join(f"/{part}" for part in parts).encode(errors="replace").decode()


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return UNKNOWN_NAME
    if error["type"] == "missing" and error["loc"] == ("body",):
        return BODY_REQUIRED
    if error["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return NOT_AN_OBJECT
    message = str(error["msg"]).removeprefix("Value error, ")
    if isinstance(error.get("input"), str):  # pydantic counts "items" if a validator of ours follows the length check
        message = message.replace(" items after validation", " characters").replace(
            " item after validation", " character"
        )
    return message.encode(errors="replace").decode()
