"""The OpenAPI document and the pages that show it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from service.accounts.passwords import Passwords
from service.api.authentication import READ_ONLY_KEY_PATHS
from service.api.pipeline.response_sender import DEFAULT_HEADERS
from service.app import create_app
from tests.conftest import make_settings
from tests.support.factories import PASSWORD, Factory
from tests.support.problems import DOCUMENT, OPERATIONS, WITH_BODY, Operation

every = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
OPEN = {"POST /auth/login", "POST /auth/refresh", "GET /", "GET /healthz", "GET /readyz", "GET /metrics", "GET /ws"}
OPTIONAL = {"POST /auth/register"}
UNLIMITED = {"GET /healthz", "GET /readyz", "GET /metrics"}
LIMIT_HEADERS = {"RateLimit", "RateLimit-Policy"}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return dict(DOCUMENT["components"]["schemas"][name]) if name else schema


async def test_the_document_is_served_and_lists_every_route(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == DOCUMENT
    assert {str(operation) for operation in OPERATIONS} == {
        "POST /auth/register",
        "POST /auth/login",
        "POST /auth/refresh",
        "POST /auth/logout",
        "GET /auth/me",
        "PUT /auth/password",
        "GET /auth/sessions",
        "DELETE /auth/sessions/{session_id}",
        "POST /auth/keys",
        "GET /auth/keys",
        "DELETE /auth/keys/{key_id}",
        "GET /users",
        "GET /users/{user_id}",
        "PATCH /users/{user_id}",
        "POST /auth/ticket",
        "POST /tasks",
        "GET /tasks",
        "GET /tasks/export",
        "GET /tasks/{task_id}",
        "PUT /tasks/{task_id}",
        "PATCH /tasks/{task_id}",
        "DELETE /tasks/{task_id}",
        "GET /tasks/{task_id}/history",
        "POST /tasks/{task_id}/restore",
        "POST /tasks/{task_id}/attachments",
        "GET /tasks/{task_id}/attachments",
        "GET /tasks/{task_id}/attachments/{attachment_id}",
        "DELETE /tasks/{task_id}/attachments/{attachment_id}",
        "POST /tasks/bulk",
        "GET /events",
        "GET /ws",
        "GET /analytics",
        "GET /analytics/timeseries",
        "GET /",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /admin/queries",
        "GET /admin/queries/{name}/plan",
    }


@every
def test_every_operation_documents_its_errors_as_problems(operation: Operation) -> None:
    responses = operation.spec["responses"]
    expected = {"422", "500", "503"}
    expected |= set() if str(operation) in OPEN | OPTIONAL else {"401"}
    expected |= {"413"} if operation.fields else set()
    expected |= {"400", "408", "415"} if "413" in responses else set()
    expected |= {"404", "403"} if "{" in operation.template else set()
    expected |= {"403"} if operation.template.startswith(("/users", "/admin")) else set()
    reading = operation.method == "GET" or operation.template in READ_ONLY_KEY_PATHS
    expected |= set() if reading or str(operation) in OPEN else {"403"}
    expected |= set() if str(operation) in UNLIMITED else {"429"}
    guarded = operation.template == "/tasks/{task_id}" and operation.method != "GET"
    expected |= {"412"} if guarded else set()
    assert expected <= responses.keys()
    for status, response in responses.items():
        if int(status) >= 400:
            reference = response["content"]["application/problem+json"]["schema"]["$ref"]
            assert response["content"].keys() == {"application/problem+json"}
            assert reference == "#/components/schemas/Problem"
            assert response["description"]
            assert ("Retry-After" in response.get("headers", {})) == (status in {"429", "503"})
            assert ("WWW-Authenticate" in response.get("headers", {})) == (status == "401")


@every
def test_every_response_documents_its_rate_limit_headers(operation: Operation) -> None:
    for response in operation.spec["responses"].values():
        headers = response.get("headers", {})
        assert LIMIT_HEADERS & headers.keys() == (set() if str(operation) in UNLIMITED else LIMIT_HEADERS)
    assert ("429" in operation.spec["responses"]) == (str(operation) not in UNLIMITED)


@every
def test_every_parameter_has_a_description(operation: Operation) -> None:
    for parameter in operation.spec.get("parameters", []):
        assert parameter["description"], parameter["name"]


@every
def test_every_operation_has_a_summary_and_a_description(operation: Operation) -> None:
    assert operation.spec["summary"]
    assert operation.spec["description"].endswith(".")
    assert operation.spec["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}


@every
def test_a_token_is_asked_for_where_one_is_needed(operation: Operation) -> None:
    needed: list[dict[str, Any]] = [{"Bearer": []}, {"ApiKey": []}]
    if str(operation) in OPEN:
        needed = []
    if str(operation) in OPTIONAL:
        needed.append({})
    assert operation.spec.get("security") == needed


def test_authorize_uses_the_log_in_route() -> None:
    scheme = DOCUMENT["components"]["securitySchemes"]["Bearer"]
    assert scheme["type"] == "oauth2"
    assert scheme["flows"]["password"]["tokenUrl"] == "auth/login"
    login = DOCUMENT["paths"]["/auth/login"]["post"]["requestBody"]["content"]
    assert login.keys() == {"application/json"}  # with a form of the same schema, a generated client sends both


async def test_the_log_in_route_accepts_the_form_that_authorize_sends(make: Factory) -> None:
    ada = await make.user()
    form = {"grant_type": "password", "username": ada.username, "password": PASSWORD, "scope": ""}
    assert (await ada.client.post("/auth/login", data=form)).status_code == 200


def test_authorize_accepts_an_api_key() -> None:
    scheme = DOCUMENT["components"]["securitySchemes"]["ApiKey"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_nothing_of_the_frameworks_own_errors_is_left() -> None:
    assert "HTTPValidationError" not in str(DOCUMENT)
    assert not {"HTTPValidationError", "ValidationError"} & DOCUMENT["components"]["schemas"].keys()


def test_every_reference_leads_somewhere() -> None:
    references = re.findall(r"'#/components/(\w+)/([\w-]+)'", str(DOCUMENT))
    assert len(references) == str(DOCUMENT).count("$ref")
    for kind, name in references:
        assert DOCUMENT["components"][kind][name]


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_every_field_of_a_body_has_an_example(operation: Operation) -> None:
    for content in operation.spec["requestBody"]["content"].values():
        for name, field in resolved(content["schema"])["properties"].items():
            assert field.get("examples") or field.get("enum"), name


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_no_field_beyond_those_of_a_body_is_documented(operation: Operation) -> None:
    for content in operation.spec["requestBody"]["content"].values():
        assert resolved(content["schema"])["additionalProperties"] is False


@pytest.fixture
async def limited(sql: asyncpg.Connection[asyncpg.Record], database_url: str) -> AsyncIterator[Factory]:
    """Accounts of an application with limits."""
    values = {"rate_limit_per_minute": 100, "login_limit_per_minute": 10, "sql_admin": True}
    app = create_app(make_settings(database_url, **values), passwords=Passwords(cost=4))
    async with app.router.lifespan_context(app):
        yield Factory(sql, app)


async def test_successful_responses_match_the_document(limited: Factory) -> None:
    make = limited
    ada = await make.admin()
    logged_in = (await ada.client.post("/auth/login", json={"username": ada.username, "password": PASSWORD})).json()
    key = (await ada.client.post("/auth/keys", json={"name": "x"})).json()
    other = await make.user()
    weather = '{"temperature": 1.5, "condition": "Snow"}'
    tasks = [await make.task(ada, city="Oslo", weather=weather) for _ in range(21)]  # so that there is a next page
    task = f"/tasks/{tasks[0]}"
    bodies: dict[str, Any] = {
        "/auth/register": {"username": "new", "password": PASSWORD},
        "/auth/login": {"username": ada.username, "password": PASSWORD},
        "/auth/refresh": {"refresh_token": logged_in["refresh_token"]},
        "/auth/password": {"current_password": PASSWORD, "new_password": PASSWORD},
        "/auth/keys": {"name": "nightly", "expires_at": "2100-01-01"},
        "/users/{user_id}": {"role": "admin"},
        "/tasks": {"title": "x"},
        "/tasks/bulk": {"tasks": [{"title": "x"}]},
        "/tasks/{task_id}": {"title": "x"},
    }
    session = await make.session(ada.id)
    attachment = (await ada.client.post(f"{task}/attachments", files={"file": b"x"})).json()["id"]
    ids = {"{task_id}": task.rpartition("/")[2], "{key_id}": key["id"], "{user_id}": other.id, "{session_id}": session}
    ids["{name}"] = "tasks.get"

    ids["{attachment_id}"] = attachment
    last = [
        "GET",
        "POST /auth/refresh",
        "DELETE",
        "POST /tasks/{task_id}/restore",
        "PUT /auth/password",
        "POST /auth/logout",
    ]
    ranks = [(n, start) for n, start in enumerate(last)]
    ordered = sorted(
        OPERATIONS,
        key=lambda one: (max([0, *(n for n, s in ranks if str(one).startswith(s))]), -one.template.count("/")),
    )
    for operation in ordered:
        body = bodies[operation.template] if operation.fields else None
        path = re.sub(r"\{\w+\}", lambda name: str(ids[name[0]]), operation.template)
        if path in {"/ws", "/tasks/export"}:  # tests/realtime and test_export have them
            continue
        files = {"file": b"x"} if operation.takes_file else None
        answer = await ada.client.request(operation.method, path, json=body, files=files)
        (status, documented_answer), *_ = [item for item in operation.spec["responses"].items() if int(item[0]) < 300]
        assert answer.status_code == int(status), operation
        documented = {name.lower() for name in documented_answer["headers"]}
        of_http = {
            "content-type",
            "content-length",
            "cross-origin-resource-policy",
            *(name.lower() for name in DEFAULT_HEADERS),
        }
        assert answer.headers.keys() - of_http <= documented, operation
        assert documented - {"idempotency-replayed", "link"} <= answer.headers.keys(), operation
        if status != "204":
            kind = answer.headers["Content-Type"]
            if "application/octet-stream" in documented_answer["content"]:
                continue
            assert kind in documented_answer["content"]
            value = answer.json() if kind == "application/json" else answer.text
            conforms(value, documented_answer["content"][kind]["schema"])


def conforms(value: Any, schema: dict[str, Any]) -> None:
    """Hold a value against as much of JSON Schema as the document's replies use."""
    schema = resolved(schema)
    if "anyOf" in schema:
        schema = next(one for one in schema["anyOf"] if (one.get("type") == "null") == (value is None))
        schema = resolved(schema)
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "boolean": bool,
        "number": (int, float),
        "null": type(None),
    }
    assert isinstance(value, kinds[schema["type"]]), (value, schema)
    if schema["type"] == "array":
        for item in value:
            conforms(item, schema["items"])
    if "properties" in schema:
        open_ended = schema.get("additionalProperties", False) is not False
        assert value.keys() >= set(schema.get("required", []))
        assert open_ended or value.keys() <= schema["properties"].keys()
        for name in value.keys() & schema["properties"].keys():
            conforms(value[name], schema["properties"][name])


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", answer.text)
    needed = re.findall(r"""(?:src|href)=["']([^"']+)["']""", answer.text)
    assert any(path.endswith(".js") for path in needed)
    for path in needed:
        part = await client.get(path)
        assert (part.status_code, len(part.content) > 100) == (200, True), path
        assert b"cdn." not in part.content
    assert "/openapi.json" in answer.text


async def test_a_pages_policy_lets_its_scripts_run_and_nothing_foreign(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "default-src 'none'" in (await client.get("/healthz")).headers["Content-Security-Policy"]
