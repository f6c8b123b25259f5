"""The OpenAPI document: what every route may answer, and the pages that show it without internet."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.accounts.schemas import Credentials
from service.api.pipeline.rate_limit import UNLIMITED
from service.api.problems import PHRASES, Problem

DESCRIPTION = """\
Tasks, their owners and figures over them.

Errors are `application/problem+json` (RFC 9457) with a stable `code`: `malformed unauthorized forbidden not_found
method_not_allowed request_timeout conflict stale too_large quota_exceeded unsupported_media_type
range_not_satisfiable invalid upgrade_required request_header_fields_too_large rate_limited internal unavailable`.
Unknown fields and parameters are refused (422), as are parameters that are there twice, but for `status`.
`X-Request-ID` is taken or made, returned, and in every log line of the request.
Every request but those to `/healthz`, `/readyz` and `/metrics` is limited (429 with `Retry-After`): N at once, then N a
minute, evenly. `RateLimit-Policy` and `RateLimit` say how many there are a minute, and how many are left.
"""
TAGS = [
    {"name": "accounts", "description": "Register, log in, who am I."},
    {"name": "sessions", "description": "What stands for a log-in: sessions, tickets, and API keys for machines."},
    {"name": "administration", "description": "All accounts; for administrators."},
    {"name": "tasks", "description": "One's own tasks; an administrator's are all."},
    {"name": "attachments", "description": "Files of tasks; who may see or change a task may its files."},
    {"name": "events", "description": "Every committed change of a task, live and from any point on."},
    {"name": "analytics", "description": "Figures over tasks."},
    {"name": "operations", "description": "For those who run the service."},
]
# A detail and the code of each error, as a client may meet them.
EXAMPLES = {
    400: ("The body is not JSON.", "malformed"),
    401: ("The token has expired.", "unauthorized"),
    403: ("This task belongs to another user.", "forbidden"),
    404: ("There is no such task.", "not_found"),
    405: ("This path does not take this method; `Allow` says which it takes.", "method_not_allowed"),
    408: ("The body did not arrive in time.", "request_timeout"),
    409: ("This username is taken.", "conflict"),
    412: ('The task has the ETag "2", quotes included, which the request does not expect.', "stale"),
    413: ("The body is too large, or has too many values in it.", "too_large"),
    415: ("The body takes Content-Type: application/json.", "unsupported_media_type"),
    416: ("The file does not reach that far; `Content-Range` says how far it does.", "range_not_satisfiable"),
    422: ("Some values do not hold; `errors` says which.", "invalid"),
    426: ("This is a WebSocket.", "upgrade_required"),
    429: ("Too many requests.", "rate_limited"),
    431: ("The request's headers are too large.", "request_header_fields_too_large"),
    500: ("Something went wrong here. The request id leads to it in the log.", "internal"),
    503: ("The database is unavailable or busy.", "unavailable"),
}
EVERYWHERE = (422, 431, 500, 503)
# The IETF draft "RateLimit header fields for HTTP".
HEADERS = {
    "RateLimit-Policy": {
        "description": "The limits that the request was counted under: `q` requests in `w` seconds.",
        "schema": {"type": "string", "examples": ['"requests";q=100;w=60']},
    },
    "RateLimit": {
        "description": "`r` requests are left, and all are again in `t` seconds.",
        "schema": {"type": "string", "examples": ['"requests";r=99;t=1']},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "examples": [1]}},
    "X-Request-ID": {
        "description": "The request's own, or one that was made for it.",
        "schema": {"type": "string", "examples": ["4bf92f3577b34da6a3ce929d0e0e4736"]},
    },
    "Server-Timing": {
        "description": "Milliseconds of its parts: `db`, `cache`, `weather`, `total`.",
        "schema": {"type": "string", "examples": ["db;dur=1.2, total;dur=2.0"]},
    },
}
_ETAG = {"ETag": {"description": "The version, for If-Match and If-None-Match.", "schema": {"type": "string"}}}
_LOCATION = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "Only where this is the answer of the first request with the Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_FILE_HEADERS = {
    "ETag": {"description": "The SHA-256, for If-None-Match and If-Range.", "schema": {"type": "string"}},
    "Accept-Ranges": {"schema": {"type": "string", "enum": ["bytes"]}},
    "Content-Disposition": {
        "description": "`attachment`, with the file name (RFC 6266).",
        "schema": {"type": "string"},
    },
}
_FILE_CONTENT = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_CONTENT_RANGE = {"Content-Range": {"schema": {"type": "string", "examples": ["bytes 0-1023/48213"]}}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "headers": _FILE_HEADERS, "content": _FILE_CONTENT},
    206: {"description": "A part of it.", "headers": _FILE_HEADERS | _CONTENT_RANGE, "content": _FILE_CONTENT},
    304: {"description": "Not Modified", "headers": {"ETag": _FILE_HEADERS["ETag"]}},
}
_FILE = {"type": "string", "format": "binary", "description": "A file, with its name."}
_UPLOAD = {"type": "object", "required": ["file"], "properties": {"file": _FILE}, "additionalProperties": False}
UPLOAD_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}}
LOCATION: dict[int | str, dict[str, Any]] = {201: {"headers": _LOCATION}}
PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The next page, `rel="next"` (RFC 8288); absent on the last one.',
                "schema": {"type": "string", "examples": ['</tasks?cursor=…>; rel="next"']},
            }
        }
    }
}
REPLAYED: dict[int | str, dict[str, Any]] = {201: {"headers": _REPLAYED}}
TASK_HEADERS: dict[int, dict[int | str, dict[str, Any]]] = {
    200: {200: {"headers": _ETAG}},
    201: {201: {"headers": _ETAG | _LOCATION | _REPLAYED}},
    304: {304: {"description": "Not Modified", "headers": _ETAG}},
}
_PATCH_BODY = {"schema": {"$ref": "#/components/schemas/TaskPatch"}}
MERGE_PATCH = {"requestBody": {"content": {"application/merge-patch+json": _PATCH_BODY}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give the errors that a route may answer, for its `responses`; those of every route included."""
    of_bodies = {400, 408, 415} if 413 in statuses else set()
    return {status: _problem(status) for status in sorted({*statuses, *of_bodies, *EVERYWHERE})}


def _problem(status: int) -> dict[str, Any]:
    documented: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": _content(status)}
    if status == 401:
        documented["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "examples": ["Bearer"]}}}
    if status in {429, 503}:
        documented["headers"] = _headers("Retry-After")
    if status == 412:
        documented["headers"] = _ETAG
    if status == 416:
        documented["headers"] = _CONTENT_RANGE
    return documented


def _content(status: int) -> dict[str, Any]:
    detail, code = EXAMPLES[status]
    title = PHRASES.get(status) or HTTPStatus(status).phrase
    example: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    example["request_id"] = "4bf92f3577b34da6a3ce929d0e0e4736"
    if status == 422:
        example["errors"] = [{"pointer": "/title", "message": "takes a text that is not blank"}]
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _limited(operation: dict[str, Any]) -> None:
    """Add that any request may be one too many, and what every answer says of the limit."""
    responses = operation["responses"]
    responses["429"] = _problem(429)
    for response in responses.values():
        response["headers"] = response.get("headers", {}) | _headers("RateLimit-Policy", "RateLimit")


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` give the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = document["components"]["schemas"]
            for model in (Problem, Credentials):
                whole = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas |= whole.pop("$defs", {}) | {model.__name__: whole}
            document["components"]["headers"] = HEADERS
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    if path not in UNLIMITED:
                        _limited(operation)
                    for response in operation["responses"].values():
                        response["headers"] = response.get("headers", {}) | _headers("X-Request-ID", "Server-Timing")
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this as the way
