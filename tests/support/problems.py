"""The common form of all errors, and the operations of the OpenAPI document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from service.app import create_app
from tests.conftest import make_settings

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}
INSIDES = re.compile(r"select|insert|update |delete from|_check|_key|_fkey|traceback|asyncpg|\.py\b", re.IGNORECASE)
DOCUMENT = create_app(make_settings("postgresql://nowhere/none", sql_admin=True)).openapi()


def filled(template: str, value: object = 1) -> str:
    """Return a path: the template with the value in place of each parameter."""
    return re.sub(r"\{\w+\}", str(value), template)


@dataclass(frozen=True)
class Operation:
    """One method of one path, and its operation object in the OpenAPI document."""

    method: str
    template: str
    spec: dict[str, Any]

    @property
    def path(self) -> str:
        """Return a path of the operation, with 1 for each parameter."""
        return filled(self.template)

    @property
    def fields(self) -> list[str]:
        """Return the field names of the JSON body; an empty list if the operation has none."""
        contents = self.spec.get("requestBody", {}).get("content", {})
        references = [one["schema"]["$ref"].rpartition("/")[2] for one in contents.values() if "$ref" in one["schema"]]
        return list(DOCUMENT["components"]["schemas"][references[0]]["properties"]) if references else []

    @property
    def takes_file(self) -> bool:
        """Return whether the body is a file upload."""
        return "multipart/form-data" in self.spec.get("requestBody", {}).get("content", {})

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


OPERATIONS = [
    Operation(method.upper(), path, spec)
    for path, methods in DOCUMENT["paths"].items()
    for method, spec in methods.items()
]
WITH_BODY = [operation for operation in OPERATIONS if operation.fields]


def problem(response: httpx.Response, status: int, *, pointers: set[str] | None = None) -> dict[str, Any]:
    """Check that a response is a well-formed problem with the status; return its body."""
    assert response.status_code == status, f"{response.request.method} {response.url}: {response.text}"
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body.keys() - {"errors"} == MEMBERS
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert all(isinstance(body[name], str) and body[name] for name in MEMBERS - {"status"})
    assert ("errors" in body) == (status == 422)
    assert not INSIDES.search(response.text)
    if pointers is not None:
        assert {error["pointer"] for error in body["errors"]} == pointers
    return body
