"""Fixtures that compare the statements a route runs with the statements that `sql catalog` lists for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi.routing import APIRoute

from service.db.statements import Statement
from service.dba.callers import EVERY_REQUEST, callers

route: ContextVar[str] = ContextVar("route", default="")


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """Collect the statements that each route runs in the test; a statement missing from the catalogue is a failure."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    handle, arguments = APIRoute.handle, Statement._arguments

    async def handling(self: APIRoute, scope: Any, receive: Any, send: Any) -> None:
        token = route.set(f"{scope['method']} {self.path}")
        try:
            await handle(self, scope, receive, send)
        finally:
            route.reset(token)

    def running(self: Statement, values: dict[str, Any]) -> list[Any]:
        if route.get():
            found[route.get()].add(self.name)
        return arguments(self, values)

    monkeypatch.setattr(APIRoute, "handle", handling)
    monkeypatch.setattr(Statement, "_arguments", running)
    yield found
    documented = callers()
    for path, names in found.items():
        assert not {name for name in names if not {path, EVERY_REQUEST} & set(documented.get(name, ()))}, (
            f"{path} runs what the catalogue does not know of"
        )
