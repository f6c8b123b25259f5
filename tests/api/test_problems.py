"""Bad input on every route: the right status, a problem with every member, nothing of the inside, and a quiet log."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from loguru import logger

from service.api.pipeline.body_limits import MAX_BODY_BYTES, MAX_LARGE_BODY_BYTES
from tests.support.factories import PASSWORD, Factory
from tests.support.problems import DOCUMENT, OPERATIONS, WITH_BODY, Operation, filled, problem

JSON = {"Content-Type": "application/json"}
VALID: dict[str, dict[str, Any]] = {
    "/auth/register": {"username": "new", "password": PASSWORD},
    "/auth/login": {"username": "new", "password": PASSWORD},
    "/auth/refresh": {"refresh_token": "none"},
    "/auth/password": {"current_password": PASSWORD, "new_password": PASSWORD},
    "/auth/keys": {"name": "nightly", "expires_at": None, "read_only": True},
    "/users/{user_id}": {"role": "user", "active": True},
    "/tasks": {"title": "x"},
    "/tasks/bulk": {"tasks": [{"title": "x"}]},
    "/tasks/{task_id}": {"title": "x"},
}
FIELDS = [(operation, field) for operation in WITH_BODY for field in operation.fields]
every = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
with_body = pytest.mark.parametrize("operation", WITH_BODY, ids=str)
every_field = pytest.mark.parametrize(("operation", "field"), FIELDS, ids=str)


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    """Nothing is logged as an error, which is where a trace would be."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR")
    yield
    logger.remove(sink)
    assert not lines


@pytest.fixture
async def ada(make: Factory) -> httpx.AsyncClient:
    """Someone who may."""
    return (await make.admin()).client


async def send(
    client: httpx.AsyncClient, operation: Operation, content: bytes, *, kind: str = "application/json"
) -> httpx.Response:
    headers = {b"Content-Type": kind.encode("latin-1")} if kind else {}
    return await client.request(operation.method, operation.path, content=content, headers=headers)


def body(operation: Operation, **fields: str) -> bytes:
    """Return a valid body with the JSON text of some fields replaced."""
    members = {name: json.dumps(value) for name, value in VALID[operation.template].items()} | fields
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}").encode()


async def reach(client: httpx.AsyncClient, operation: Operation, path: str) -> httpx.Response:
    """Ask for a path, with a good body where the operation takes one."""
    if operation.takes_file:
        return await client.request(operation.method, path, files={"file": b"x"})
    content = body(operation) if operation.fields else b""
    return await client.request(operation.method, path, content=content, headers=JSON if content else {})


# Paths, methods, parameters


UNKNOWN_PATHS = [
    "/nothing",
    "/tasks/",
    "/tasks/1/",
    "/tasks/1/2",
    "/auth",
    "/AUTH/me",
    "http://test//tasks",
    "/tasks%2F1",
]
UNKNOWN_PATHS += ["/%00", "/%ff", "/..%2f..%2fetc/passwd", "/auth/%6De%2e", "/static-offline-docs/none.js"]
UNKNOWN_PATHS += ["/static-offline-docs/%2e%2e/app.py", "/%", "/%zz", "/" + "x" * 60_000]


@pytest.mark.parametrize("path", UNKNOWN_PATHS, ids=lambda value: value[:30])
async def test_an_unknown_path_is_not_found(ada: httpx.AsyncClient, path: str) -> None:
    assert problem(await ada.get(path), 404)["code"] == "not_found"


@pytest.mark.parametrize("template", DOCUMENT["paths"])
async def test_a_wrong_method_gets_the_allowed_ones(ada: httpx.AsyncClient, template: str) -> None:
    allowed = sorted(method.upper() for method in DOCUMENT["paths"][template])
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - set(allowed):
        refused = await ada.request(method, filled(template))
        assert problem(refused, 405)["code"] == "method_not_allowed"
        assert sorted(refused.headers["Allow"].split(", ")) == sorted([*allowed, *["HEAD"] * ("GET" in allowed)])


TAKING_PARAMETERS = [
    one for one in OPERATIONS if any(parameter["in"] == "query" for parameter in one.spec.get("parameters", []))
]


@pytest.mark.parametrize("operation", TAKING_PARAMETERS, ids=str)
async def test_a_parameter_that_is_there_twice_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    for parameter in operation.spec["parameters"]:
        if parameter["in"] == "query" and parameter["name"] != "status" and operation.path != "/ws":
            answer = await ada.get(f"{operation.path}?{parameter['name']}=1&{parameter['name']}=1")
            problem(answer, 422, pointers={f"/query/{parameter['name']}"})


UNKNOWN = ["unknown=1", "unknown", "a%00b=%00", "%ff=%fe", "UNKNOWN=1&x=2", "=1", "a~b/c=1"]
ENDLESS = ["x" * 60_000 + "=1", "x=" + "y" * 60_000, "&".join(f"x{n}=1" for n in range(5_000))]


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.template != "/ws"], ids=str)
async def test_an_unknown_parameter_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    for query in UNKNOWN + ENDLESS:
        refused = await reach(ada, operation, f"{operation.path}?{query}")
        if query == "unknown=1":
            expected = [{"pointer": "/query/unknown", "message": "Unknown name"}]
            assert [one for one in refused.json()["errors"] if "Unknown" in one["message"]] == expected
        assert all(error["pointer"].startswith("/query") for error in problem(refused, 422)["errors"])
        assert len(refused.content) < 10_000


BAD_IDS = ["0", "-1", str(2**63), "9" * 30, "9" * 5000, "1.5", "1e3", "1e999", "NaN", "Infinity", "-inf", "x", "%00"]
BAD_IDS += ["1%00", "%ff", "%ED%A0%80", "%F0%9F%A6%8A", "%D9%A1", "0x1", "null", "%20", "1;drop", "%25", "1%20or%201=1"]


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if "_id}" in one.template], ids=str)
async def test_an_invalid_id_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    names = re.findall(r"{(\w+)}", operation.template)
    for one in BAD_IDS:
        refused = await reach(ada, operation, filled(operation.template, one))
        problem(refused, 422, pointers={f"/path/{name}" for name in names})


BAD_MOMENTS = ["", "x", "0000-01-01", "10000-01-01", "2025-02-30", "2025-13-01", "2023-02-29", "2025-5-4", "20250524"]
BAD_MOMENTS += ["2025-05-24T25:00:00Z", "2025-05-24T12:60:00Z", "2025-05-24T12:00:61Z", "2025-05-24T12:00"]
BAD_MOMENTS += ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2025-05-24T12:00:00+99:00", "1716552000"]
BAD_MOMENTS += [
    "-0001-01-01",
    "2025-05-24T12:00:00 02:00",
    "2025-05-24Z",
    "\u0662025-05-24",
    "2025-05-24\0",
    "infinity",
]
BAD_MOMENTS += ["2025-05-24T12:00:00.Z", "9" * 5000, "NaN", "2025-05-24\n", "now", "2025-W21-6"]


@pytest.mark.parametrize("path", ["/tasks", "/analytics"])
@pytest.mark.parametrize("name", ["start_date", "end_date"])
async def test_a_timestamp_outside_the_calendar_is_refused(ada: httpx.AsyncClient, path: str, name: str) -> None:
    for moment in BAD_MOMENTS:
        problem(await ada.get(path, params={name: moment}), 422, pointers={f"/query/{name}"})


# Bodies


NOT_JSON = [
    b"{",
    b"}",
    b"nul",
    b"{'title': 1}",
    b'{"title": "x",}',
    b'{"title": "x"} x',
    b'"\xff"',
    b'{"title": "\\x"}',
]
NOT_JSON += [b'{"title": NaN}', b"-Infinity", b'{"title": "x", "n": [Infinity]}']
NOT_JSON += [b'{"title": "a\nb"}', b"\x00", b"[" * 20_000, b'{"a":' * 20_000, b"1e", b"--1", b" ", b"9" * 5_000]
NOT_JSON += [b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 20_000 + b"1" + b"}" * 20_000]
NO_OBJECT = [
    b"null",
    b"true",
    b"1",
    b"1.5",
    b"1e999",
    b'"x"',
    b"[]",
    b"[{}]",
    b"9" * 400,
    b'"\xed\xa0\x80"',
    b"[" * 400 + b"]" * 400,
]


@with_body
async def test_a_body_that_is_not_json_is_malformed(ada: httpx.AsyncClient, operation: Operation) -> None:
    for content in NOT_JSON:
        assert problem(await send(ada, operation, content), 400)["code"] == "malformed"


@with_body
async def test_json_that_is_no_object_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    for content in NO_OBJECT:
        refused = problem(await send(ada, operation, content), 422, pointers={""})
        assert refused["errors"][0]["message"] in {"Input should be a JSON object", "Body required"}


@with_body
async def test_an_empty_body_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    is_log_in = operation.template == "/auth/login"
    problem(await send(ada, operation, b""), 400 if is_log_in else 422)
    refused = problem(await ada.request(operation.method, operation.path), 415 if is_log_in else 422)
    assert is_log_in or refused["errors"] == [{"pointer": "", "message": "Body required"}]


@with_body
async def test_a_body_of_another_media_type_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    kinds = ["", "text/plain", "application/xml", "application/jsonx", "json", "text/json", "*/*", "\xff"]
    kinds += ["application/json-patch+json", "application/vnd.api+json"]  # which mean other things by the same text
    for kind in kinds if operation.method == "PATCH" else [*kinds, "application/merge-patch+json"]:
        refused = await send(ada, operation, body(operation), kind=kind)
        assert problem(refused, 415)["code"] == "unsupported_media_type"


@with_body
async def test_a_compressed_body_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    content = gzip.compress(body(operation))
    for codings in (["gzip"], ["GZip, identity"], ["identity", "gzip"]):
        headers = [*JSON.items(), *(("Content-Encoding", coding) for coding in codings)]
        refused = await ada.request(operation.method, operation.path, content=content, headers=headers)
        assert problem(refused, 415)["code"] == "unsupported_media_type"
        assert refused.headers["accept-encoding"] == "identity"


async def test_a_body_with_content_encoding_identity_is_accepted(ada: httpx.AsyncClient) -> None:
    for codings in (["identity"], ["Identity, identity"], ["", "identity"]):
        headers = [*JSON.items(), *(("Content-Encoding", coding) for coding in codings)]
        assert (await ada.post("/tasks", content=b'{"title": "x"}', headers=headers)).status_code == 201


@with_body
async def test_json_may_be_named_in_any_case_and_with_a_charset(ada: httpx.AsyncClient, operation: Operation) -> None:
    kinds = ["Application/JSON", "application/json; charset=utf-8"]
    for kind in [*kinds, "application/merge-patch+json"] if operation.method == "PATCH" else kinds:
        assert (await send(ada, operation, body(operation), kind=kind)).status_code in {201, 204, 401, 404, 409}


UNKNOWN_FIELDS = {"unknown": "/unknown", "a/b~c": "/a~1b~0c", "": "/", "\\u0000": "/\0", "\\ud800": ""}


@with_body
async def test_an_unknown_field_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    for name, pointer in UNKNOWN_FIELDS.items():
        refused = await send(ada, operation, body(operation, **{name: "1"}))
        (error,) = problem(refused, 422)["errors"]
        assert error["pointer"] == pointer
        assert error["message"] == "Unknown name" or not pointer  # no field can have a name that is no text


BAD_VALUES = ['"long enough\\u0000"', '"long enough\\ud800"', '"\\udfff long enough"', "1", "1.5", "true", "1e999"]
BAD_VALUES += [
    "-1e-999",
    "9" * 400,
    "[]",
    '["long enough"]',
    "{}",
    '{"$ne": null}',
    "[" * 400 + "]" * 400,
]


@every_field
async def test_a_value_of_the_wrong_kind_is_refused(ada: httpx.AsyncClient, operation: Operation, field: str) -> None:
    for value in BAD_VALUES:
        if value == "true" and field in {"read_only", "active"}:
            continue
        refused = problem(await send(ada, operation, body(operation, **{field: value})), 422)
        # A list says which of its items.
        assert all(f"{error['pointer']}/".startswith(f"/{field}/") for error in refused["errors"])


@with_body
async def test_the_last_of_repeated_fields_is_validated(ada: httpx.AsyncClient, operation: Operation) -> None:
    field = operation.fields[0]
    content = body(operation)[:-1] + f', "{field}": 1}}'.encode()
    problem(await send(ada, operation, content), 422, pointers={f"/{field}"})


@with_body
async def test_a_thousand_unknown_fields_get_a_short_answer(ada: httpx.AsyncClient, operation: Operation) -> None:
    refused = await send(ada, operation, body(operation, **{f"x{n}" * 100: "1" for n in range(1000)}))
    problem(refused, 422)
    assert len(refused.content) < 50_000


@with_body
async def test_every_invalid_field_is_named(ada: httpx.AsyncClient, operation: Operation) -> None:
    refused = await send(ada, operation, body(operation, **dict.fromkeys(operation.fields, "1"), x="1"))
    problem(refused, 422, pointers={f"/{field}" for field in [*operation.fields, "x"]})


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


@with_body
async def test_a_body_over_its_limit_is_refused(ada: httpx.AsyncClient, operation: Operation) -> None:
    max_bytes = MAX_LARGE_BODY_BYTES.get((operation.method, operation.template), MAX_BODY_BYTES)
    content = body(operation).ljust(max_bytes + 1)
    kinds = ["application/json"] + ["application/x-www-form-urlencoded"] * (operation.template == "/auth/login")
    for kind in kinds:
        for sent in (content, in_pieces(content)):
            headers = {"Content-Type": kind}
            refused = await ada.request(operation.method, operation.path, content=sent, headers=headers)
            assert ("Content-Length" in refused.request.headers) == (sent is content)
            assert problem(refused, 413)["code"] == "too_large"


async def test_a_body_of_a_megabyte_is_accepted(ada: httpx.AsyncClient) -> None:
    for content in (b'{"title": "x"}'.ljust(MAX_BODY_BYTES), in_pieces(b'{"title": "x"}'.ljust(MAX_BODY_BYTES))):
        assert (await ada.post("/tasks", content=content, headers=JSON)).status_code == 201


async def test_a_deletion_with_too_large_a_body_deletes_nothing(make: Factory) -> None:
    ada = await make.user()
    path = f"/tasks/{await make.task(ada)}"
    for content in (b" " * (MAX_BODY_BYTES + 1), in_pieces(b" " * (MAX_BODY_BYTES + 1))):
        problem(await ada.client.request("DELETE", path, content=content), 413)
    assert (await ada.client.get(path)).status_code == 200


def test_the_routes_are_all_here() -> None:
    """Else the tests above would pass over nothing."""
    assert {operation.template for operation in WITH_BODY} == VALID.keys()
    assert len(FIELDS) == 3 + 2 + 1 + 2 + 3 + 2 + 3 * 4 + 1
    assert DOCUMENT["paths"].keys() == {operation.template for operation in OPERATIONS}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "utf-32-be"])
async def test_a_body_is_utf_8(ada: httpx.AsyncClient, encoding: str) -> None:
    body = '{"title": "\u2201"}'.encode(encoding)
    problem(await ada.post("/tasks", content=body, headers={"Content-Type": "application/json"}), 400)
