"""The OpenAPI document for people and generators: names, examples that are right for their route, and schemas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from service.api.problems import FIELD_REQUIRED, PROBLEM_TYPES
from service.api.routes import (
    analytics,
    attachments,
    auth,
    events,
    health,
    sessions,
    statements,
    tasks,
    users,
    websocket,
)
from tests.support.factories import Factory
from tests.support.problems import DOCUMENT, OPERATIONS, Operation, filled, problem

ROUTES = [auth, sessions, users, tasks, attachments, events, websocket, analytics, health, statements]
every = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def test_every_operation_id_is_the_plain_name_of_one_handler() -> None:
    ids = [operation.spec["operationId"] for operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    handlers = {route.name for module in ROUTES for route in module.router.routes}
    assert set(ids) == handlers


def test_the_tags_begin_with_what_a_newcomer_needs() -> None:
    names = [tag["name"] for tag in DOCUMENT["tags"]]
    assert names[:2] == ["accounts", "tasks"]
    assert names[-2:] == ["administration", "operations"]
    assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])
    assert set(names) == {operation.spec["tags"][0] for operation in OPERATIONS}


def test_the_document_names_its_server_and_licence() -> None:
    assert DOCUMENT["servers"][0]["url"] == "/"
    assert DOCUMENT["info"]["license"]["identifier"] in Path("LICENSE").read_text()[:3]


# Examples


def validate(value: Any, schema: dict[str, Any]) -> None:
    """Compare a value with a schema of the document, its references and formats included."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.validate(value, whole, cls=jsonschema.Draft202012Validator)


@every
def test_every_body_has_an_example_that_matches_its_schema(operation: Operation) -> None:
    bodies = [operation.spec.get("requestBody", {}), *operation.spec["responses"].values()]
    for content in (content for body in bodies for content in body.get("content", {}).items()):
        media_type, part = content
        if media_type in {"multipart/form-data", "application/octet-stream"}:
            continue
        validate(part["example"], part["schema"])


def _conflicts() -> dict[str, str]:
    conflicts = {str(one): one.spec["responses"].get("409") for one in OPERATIONS}
    return {
        name: one["content"]["application/problem+json"]["example"]["detail"] for name, one in conflicts.items() if one
    }


WRITES = {  # that have no conflict but a rule of the database
    *("POST /auth/login", "POST /auth/refresh", "POST /auth/logout", "POST /auth/ticket"),
    *("DELETE /auth/sessions/{session_id}", "DELETE /auth/keys/{key_id}"),
    *("PUT /tasks/{task_id}", "PATCH /tasks/{task_id}", "DELETE /tasks/{task_id}"),
    *("POST /tasks/{task_id}/attachments", "DELETE /tasks/{task_id}/attachments/{attachment_id}"),
}


def test_the_example_of_a_conflict_is_one_of_its_route() -> None:
    assert {
        detail: [name for name, one in _conflicts().items() if one == detail] for detail in _conflicts().values()
    } == {
        "This username is taken.": ["POST /auth/register"],
        "Another request has changed the password.": ["PUT /auth/password"],
        "An account has at most 100 keys.": ["POST /auth/keys"],
        "The last active administrator must stay.": ["PATCH /users/{user_id}"],
        "The first request with this Idempotency-Key is still running.": ["POST /tasks", "POST /tasks/bulk"],
        "This task is not deleted.": ["POST /tasks/{task_id}/restore"],
        "The database refuses this value.": [str(one) for one in OPERATIONS if str(one) in WRITES],
    }


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.template != "/ws"], ids=str)
async def test_the_example_of_invalid_values_is_what_the_route_returns(make: Factory, operation: Operation) -> None:
    example = operation.spec["responses"]["422"]["content"]["application/problem+json"]["example"]
    (error,) = example["errors"]
    _, place, name = [*error["pointer"].split("/"), ""][:3]
    path, parameters, body = operation.path, {}, None
    if operation.fields:
        body = {} if error["message"] == FIELD_REQUIRED else {place: 1}
    elif place == "path":
        path = operation.template.replace(f"{{{name}}}", "0")
        path = re.sub(r"\{\w+\}", "1", path)
    else:
        parameters = {name: 0}
    client = (await make.admin()).client
    refused = problem(await client.request(operation.method, path, params=parameters, json=body), 422)
    assert error in refused["errors"]


ERRORS = [
    (401, "GET", "/tasks"),
    (401, "GET", "/events"),
    (404, "GET", "/tasks/{task_id}"),
    (404, "DELETE", "/auth/keys/{key_id}"),
    (404, "GET", "/users/{user_id}"),
    (404, "GET", "/admin/queries/{name}/plan"),
]


@pytest.mark.parametrize(("status", "method", "template"), ERRORS)
async def test_the_example_of_an_error_is_what_the_route_returns(
    client: httpx.AsyncClient, make: Factory, status: int, method: str, template: str
) -> None:
    sender = client if status == 401 else (await make.admin()).client
    path = template.replace("{name}", "reports.none")
    refused = problem(await sender.request(method, filled(path, 999_999_999)), status)
    (spec,) = [one.spec for one in OPERATIONS if str(one) == f"{method} {template}"]
    example = spec["responses"][str(status)]["content"]["application/problem+json"]["example"]
    assert refused | {"request_id": ""} == example | {"request_id": ""}


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.fields or one.takes_file], ids=str)
async def test_the_example_of_an_unreadable_body_is_what_the_route_returns(make: Factory, operation: Operation) -> None:
    client = (await make.admin()).client
    media_type = "multipart/form-data" if operation.takes_file else "application/json"
    for status, kind in ((400, media_type), (415, "text/plain")):
        path = operation.template.replace("{task_id}", str(await make.task(await make.user())))
        refused = await client.request(operation.method, filled(path), content=b"{", headers={"Content-Type": kind})
        example = operation.spec["responses"][str(status)]["content"]["application/problem+json"]["example"]
        assert problem(refused, status)["detail"] == example["detail"]


# Schemas


def test_no_member_of_a_schema_has_a_default() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert not [member for member, one in schema.get("properties", {}).items() if "default" in one], name


def test_a_schema_requires_what_the_service_always_sends() -> None:
    optional = {
        name: schema["properties"].keys() - set(schema.get("required", []))
        for name, schema in DOCUMENT["components"]["schemas"].items()
        if schema["properties"].keys() - set(schema.get("required", []))
        and schema.get("additionalProperties") is not False
    }
    assert optional == {
        "HistoryEvent": {"changes"},
        "TaskEvent": {"changes"},
        "TaskWeather": {"condition", "humidity", "wind_speed", "observed_at"},
        "Problem": {"errors"},
    }


def test_members_with_a_fixed_set_of_values_are_enumerations() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"]["enum"] == list(PROBLEM_TYPES)
    assert schemas["Health"]["properties"]["status"]["enum"] == ["ok", "degraded"]
    types = ["task.created", "task.updated", "task.deleted", "task.restored"]
    assert schemas["TaskEvent"]["properties"]["type"]["enum"] == types
