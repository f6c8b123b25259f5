"""What every error looks like from outside, and the operations of the OpenAPI document that may answer one."""

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
    """Give a path of a template, with the value for what it leaves open."""
    return re.sub(r"\{\w+\}", str(value), template)


@dataclass(frozen=True)
class Operation:
    """One method on one path, and what the document says of it."""

    method: str
    template: str
    spec: dict[str, Any]

    @property
    def path(self) -> str:
        """Give a path that leads there."""
        return filled(self.template)

    @property
    def fields(self) -> list[str]:
        """Give the names of its JSON body's fields, none where it takes no such body."""
        contents = self.spec.get("requestBody", {}).get("content", {})
        references = [one["schema"]["$ref"].rpartition("/")[2] for one in contents.values() if "$ref" in one["schema"]]
        return list(DOCUMENT["components"]["schemas"][references[0]]["properties"]) if references else []

    @property
    def takes_file(self) -> bool:
        """Whether its body is a file."""
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
    """Hold a response against what every error keeps to, and give its body."""
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
