"""The OpenAPI document: what every route may answer, beyond what FastAPI derives from its signature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from service.accounts.schemas import Credentials
from service.api import examples
from service.api.pipeline.rate_limit import UNLIMITED_PATHS
from service.api.problems import CODES, MEDIA_TYPE, NOT_JSON, PROBLEM_TYPES, Problem, content
from service.db.errors import REFUSED

DESCRIPTION = f"""\
A task manager: tasks with their files, history and events, accounts, and statistics.

**To begin**, register, log in, and create a task. Other requests carry the access token of `POST /auth/login`,
or an API key of `POST /auth/keys`, as `Authorization: Bearer …`.

**Errors** have the media type `application/problem+json` (RFC 9457). Programs compare `code`, which is stable; `detail`
is a sentence for people. `errors` names each invalid value of a 422 response.

**Requests**: an unknown member or parameter returns 422. So does a repeated parameter; only `status` may be repeated.
Every response has an `X-Request-ID`, which the log has too. A request may set it.

**Lists** are pages. The `next_cursor` of a page is the `cursor` of the next one, and null on the last page.

**Rate limit**: a user may send N requests at once, and N a minute. Requests without a user count for their address. A
request over the limit returns 429 with `Retry-After`. `RateLimit-Policy` has the limit, and `RateLimit` what is left.
{", ".join(f"`{path}`" for path in sorted(UNLIMITED_PATHS))} have no limit.
"""
TAGS = [
    {"name": "accounts", "description": "Start here: register, log in, and read your own account."},
    {
        "name": "tasks",
        "description": "A user works with their own tasks, an administrator with the tasks of all users.",
    },
    {"name": "attachments", "description": "Files of tasks. Who may see a task may see its files."},
    {"name": "events", "description": "Every committed change of a task, live or after any cursor."},
    {"name": "analytics", "description": "Statistics over tasks."},
    {"name": "sessions", "description": "Log-in sessions, API keys for programs, and tickets for event streams."},
    {"name": "administration", "description": "All accounts and SQL statements, for administrators."},
    {"name": "operations", "description": "The index, health and metrics, for those who run the service."},
]
SERVERS = [{"url": "/", "description": "The service that returns this document."}]
LICENSE = {"name": "MIT", "identifier": "MIT"}
JSON_TYPES = {"application/json", "application/merge-patch+json"}
# The models that no route declares, so that FastAPI does not find them; and the direction in which they travel.
UNDECLARED_MODELS: tuple[tuple[type[BaseModel], JsonSchemaMode], ...] = (
    (Problem, "serialization"),
    (Credentials, "validation"),
)
EVERY_ROUTE = (422, 431, 500, 503)
# The details of errors, where most routes return another one than the default of its code.
DETAILS = {
    401: "A token is required: `Authorization: Bearer …`.",
    403: "This API key may only read.",
    404: "There is no such task.",
    409: REFUSED,
}
# In place of FastAPI's "Successful Response".
DONE = {"101": "The WebSocket is open.", "200": "The result.", "201": "Created.", "204": "Done. There is no body."}
EXAMPLE_REQUEST_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
# The IETF draft "RateLimit header fields for HTTP".
HEADERS = {
    "RateLimit-Policy": {
        "description": "The limits that apply to the request: `q` requests in `w` seconds.",
        "schema": {"type": "string", "examples": ['"requests";q=100;w=60']},
    },
    "RateLimit": {
        "description": "`r` requests are left; the whole limit is available again in `t` seconds.",
        "schema": {"type": "string", "examples": ['"requests";r=99;t=1']},
    },
    "Retry-After": {
        "description": "Seconds until a new attempt may succeed.",
        "schema": {"type": "integer", "examples": [1]},
    },
    "X-Request-ID": {
        "description": "The id that the request had, or else a new one.",
        "schema": {"type": "string", "examples": [EXAMPLE_REQUEST_ID]},
    },
    "Server-Timing": {
        "description": "Milliseconds spent in each part: `db`, `cache`, `weather`, and in `total`.",
        "schema": {"type": "string", "examples": ["db;dur=1.2, total;dur=2.0"]},
    },
}
_ETAG = {
    "ETag": {"description": "The task's version, for `If-Match` and `If-None-Match`.", "schema": {"type": "string"}}
}
_LOCATION = {"Location": {"description": "The path of the new resource.", "schema": {"type": "string"}}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "Present if this is the saved response of the first request with the same `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_FILE_HEADERS = {
    "ETag": {"description": "The file's SHA-256, for `If-None-Match` and `If-Range`.", "schema": {"type": "string"}},
    "Accept-Ranges": {"schema": {"type": "string", "enum": ["bytes"]}},
    "Content-Disposition": {
        "description": "`attachment`, with the file name (RFC 6266).",
        "schema": {"type": "string"},
    },
}
# The response has the media type of the file; clients read it as bytes.
_FILE_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_CONTENT_RANGE = {"Content-Range": {"schema": {"type": "string", "examples": ["bytes 0-1023/48213"]}}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole file, with its own media type.",
        "headers": _FILE_HEADERS,
        "content": _FILE_CONTENT,
    },
    206: {
        "description": "The range that `Range` names.",
        "headers": _FILE_HEADERS | _CONTENT_RANGE,
        "content": _FILE_CONTENT,
    },
    304: {"description": "The client has the present version.", "headers": {"ETag": _FILE_HEADERS["ETag"]}},
}
_FILE = {"type": "string", "format": "binary", "description": "The file; its part of the form has a `filename`."}
_UPLOAD = {"type": "object", "required": ["file"], "properties": {"file": _FILE}, "additionalProperties": False}
UPLOAD_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}}
LOCATION: dict[int | str, dict[str, Any]] = {201: {"headers": _LOCATION}}
PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The next page, `rel="next"` (RFC 8288); absent on the last page.',
                "schema": {"type": "string", "examples": ['</tasks?cursor=…>; rel="next"']},
            }
        }
    }
}
REPLAYED: dict[int | str, dict[str, Any]] = {201: {"headers": _REPLAYED}}
TASK_HEADERS: dict[int, dict[int | str, dict[str, Any]]] = {
    200: {200: {"headers": _ETAG}},
    201: {201: {"headers": _ETAG | _LOCATION | _REPLAYED}},
    304: {304: {"description": "The client has the present version.", "headers": _ETAG}},
}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
_PROBLEM_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string", "examples": ["Bearer"]}}},
    412: _ETAG,
    416: _CONTENT_RANGE,
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def merge_patch(schema: str) -> dict[str, Any]:
    """Return the second media type of a PATCH route's body, for its `openapi_extra`."""
    body = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"requestBody": {"content": {"application/merge-patch+json": body}}}


def problems(*statuses: int, details: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route, for its `responses`: these statuses, and those that every route has.

    413 says that the route has a body, and adds the other statuses of bodies. `details` are the details of the examples
    that differ from those of most routes.
    """
    of_bodies = {400, 408, 409, 415} if 413 in statuses else set()
    all_details = {**DETAILS, **(details or {})}
    return {
        status: _problem(status, all_details.get(status)) for status in sorted({*statuses, *of_bodies, *EVERY_ROUTE})
    }


def _problem(status: int, detail: str | None = None) -> dict[str, Any]:
    example = content(CODES[status], detail, request_id=EXAMPLE_REQUEST_ID)
    schema = {"$ref": "#/components/schemas/Problem"}
    response = {"description": example["title"], "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}
    return response | ({"headers": _PROBLEM_HEADERS[status]} if status in _PROBLEM_HEADERS else {})


def _references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _add_rate_limit(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses["429"] = _problem(429)
    for response in responses.values():
        response["headers"] = response.get("headers", {}) | _references("RateLimit-Policy", "RateLimit")


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add an example to each JSON body that has none, and the invalid values to the example of 422."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        for media_type, part in body.get("content", {}).items():
            if media_type in JSON_TYPES:
                part.setdefault("example", examples.example_of(part["schema"], schemas))
    content_types = operation.get("requestBody", {}).get("content", {}).keys() & JSON_TYPES
    if content_types:
        _set_detail(operation, "400", NOT_JSON)
        _set_detail(operation, "415", f"The Content-Type of the body should be {' or '.join(sorted(content_types))}.")
    invalid = operation["responses"]["422"]["content"][MEDIA_TYPE]["example"]
    invalid["errors"] = examples.invalid_values(operation, schemas)


def _set_detail(operation: dict[str, Any], status: str, detail: str) -> None:
    """Set the detail of an error's example, unless the route has one of its own."""
    example = operation["responses"][status]["content"][MEDIA_TYPE]["example"]
    if example["detail"] == PROBLEM_TYPES[example["code"]].detail:
        example["detail"] = detail


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def operation_id(route: APIRoute) -> str:
    """Return the id of a route's operation: the name of its handler."""
    return route.name


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` return the whole document, built at its first call."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=SERVERS,
                license_info=LICENSE,
            )
            schemas = document["components"]["schemas"]
            for model, mode in UNDECLARED_MODELS:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode=mode)
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            document["components"]["headers"] = HEADERS
            for path, operation in _operations(document):
                operation.setdefault("security", [])
                if path not in UNLIMITED_PATHS:
                    _add_rate_limit(operation)
                _add_examples(operation, schemas)
                for status, response in operation["responses"].items():
                    if response["description"] == "Successful Response":
                        response["description"] = DONE[status]
                    response["headers"] = response.get("headers", {}) | _references("X-Request-ID", "Server-Timing")
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this as the way
