"""The OpenAPI document: what every route may answer, and the pages that show it without internet."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.accounts import Credentials
from service.web.replies import Problem

DESCRIPTION = """\
Tasks, their owners and figures over them.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Unknown fields and parameters are refused (422).
`X-Request-ID` is taken or made, returned, and in every log line of the request.
`RateLimit-Policy` and `RateLimit` say how many requests there are a minute, and how many are left.
"""
TAGS = [
    {"name": "accounts", "description": "Register, log in, who am I."},
    {"name": "tasks", "description": "One's own tasks; an administrator's are all."},
    {"name": "events", "description": "What happens to tasks, as it happens, and nothing twice."},
    {"name": "analytics", "description": "Figures over tasks."},
    {"name": "operations", "description": "For those who run the service."},
]
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
EVERYWHERE = (422, 500, 503)
_ETAG = {"ETag": {"description": "The version, for If-Match and If-None-Match.", "schema": {"type": "string"}}}
_LOCATION = {"Location": {"description": "Where the task is.", "schema": {"type": "string"}}}
TASK_HEADERS: dict[int, dict[int | str, dict[str, Any]]] = {
    200: {200: {"headers": _ETAG}},
    201: {201: {"headers": _ETAG | _LOCATION}},
    304: {304: {"description": "Not Modified", "headers": _ETAG}},
}
_PATCH_BODY = {"schema": {"$ref": "#/components/schemas/TaskPatch"}}
MERGE_PATCH = {"requestBody": {"content": {"application/merge-patch+json": _PATCH_BODY}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give the errors that a route may answer, for its `responses`; those of every route included."""
    return {status: _problem(status) for status in sorted({*statuses, *EVERYWHERE})}


def _problem(status: int) -> dict[str, Any]:
    documented: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": PROBLEM}
    if status == 401:
        documented["headers"] = {"WWW-Authenticate": {"schema": {"type": "string", "examples": ["Bearer"]}}}
    if status in {429, 503}:
        documented["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return documented


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
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this as the way
