"""Fixtures that compare the statements a route runs with the statements that `sql catalog` lists for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import Request, Response

from service.api.endpoint import Endpoint
from service.api.headers import ROUTE
from service.api.pipeline.request_pipeline import RequestPipeline
from service.db.statements import Statement
from service.dba.callers import EVERY_REQUEST, callers

route: ContextVar[str] = ContextVar("route", default="")


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """Collect the statements that each route runs in the test; a statement missing from the catalogue is a failure."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    respond, answer, arguments = RequestPipeline._respond, Endpoint.__call__, Statement._arguments

    async def responding(self: RequestPipeline, scope: Any, receive: Any, send: Any) -> None:
        token = route.set("")
        try:
            await respond(self, scope, receive, send)
        finally:
            route.reset(token)

    async def answering(self: Endpoint, request: Request) -> Response:
        route.set(f"{request.method} {request.scope[ROUTE]}")
        return await answer(self, request)

    def running(self: Statement, values: dict[str, Any]) -> list[Any]:
        if route.get():
            found[route.get()].add(self.name)
        return arguments(self, values)

    monkeypatch.setattr(RequestPipeline, "_respond", responding)
    monkeypatch.setattr(Endpoint, "__call__", answering)
    monkeypatch.setattr(Statement, "_arguments", running)
    yield found
    documented = callers()
    for path, names in found.items():
        assert not {name for name in names if not {path, EVERY_REQUEST} & set(documented.get(name, ()))}, (
            f"{path} runs what the catalogue does not know of"
        )
