"""The table of routes: method and path to the compiled endpoint, looked up once for each request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service.api.endpoint import Endpoint
from service.api.headers import ROUTE

PARAMETER = re.compile(r"\{(\w+)\}")
SEGMENT = re.compile(rf"{PARAMETER.pattern}|[\w-]*")
MATCHES_NOTHING = "(?!)"


@dataclass(frozen=True)
class Path:
    """A path of the table: the positions of its parameters among its segments, and the endpoint of each method."""

    template: str
    parameters: dict[str, int]
    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    @classmethod
    def of(cls, template: str) -> Path:
        """Return the path of a template such as `/tasks/{task_id}`."""
        segments = enumerate(template.split("/"))
        return cls(template, {match[1]: i for i, text in segments if (match := PARAMETER.fullmatch(text))})


class Router:
    """The endpoints of all routes.

    A path without parameters is found by a dictionary, any other by one regular expression. The exact path comes first,
    so that `/tasks/export` is no task.

    document_prefixes: how the paths of the documentation's pages begin.
    """

    def __init__(self, *, document_prefixes: tuple[str, ...]) -> None:
        self._document_prefixes = document_prefixes
        self._exact: dict[str, Path] = {}
        self._parametric: dict[str, Path] = {}
        self._by_group: list[Path] = []
        self._pattern = re.compile(MATCHES_NOTHING)

    def add(self, routes: APIRouter) -> None:
        """Compile the routes of a router. Raises: TypeError for a parameter that `Endpoint` does not support."""
        for route in routes.routes:
            assert isinstance(route, APIRoute)
            _refuse_unknown(route.path)
            table = self._parametric if PARAMETER.search(route.path) else self._exact
            path = table.setdefault(route.path, Path.of(route.path))
            if path.endpoints.keys() & (route.methods or set()):
                raise TypeError(f"{route.path}: declared twice for one method")
            path.endpoints.update(dict.fromkeys(route.methods or (), Endpoint(route)))
        self._by_group = list(self._parametric.values())
        patterns = [f"({PARAMETER.sub('[^/]+', path)})" for path in self._parametric]
        if len(set(patterns)) < len(patterns):
            raise TypeError(f"{list(self._parametric)}: two paths of one form")
        self._pattern = re.compile("|".join(patterns) or MATCHES_NOTHING)

    def find(self, scope: Scope) -> Endpoint | None:
        """Return the endpoint of a request, and put its route and path parameters into the scope.

        Return None for a page of the documentation. Raises: HTTPException 404 or 405.
        """
        path = self._find_path(scope)
        if path is None:
            if scope["path"].startswith(self._document_prefixes):
                return None
            raise HTTPException(404)
        scope[ROUTE] = path.template
        endpoint = path.endpoints.get(scope["method"])
        if endpoint is None:
            methods = path.endpoints.keys() | ({"HEAD"} if "GET" in path.endpoints else set())
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return endpoint

    def _find_path(self, scope: Scope) -> Path | None:
        text = scope["path"]
        path = self._exact.get(text)
        if path is None and (match := self._pattern.fullmatch(text)):
            path = self._by_group[(match.lastindex or 0) - 1]
            segments = text.split("/")
            scope["path_params"] = {name: segments[index] for name, index in path.parameters.items()}
        return path


def _refuse_unknown(template: str) -> None:
    if not all(SEGMENT.fullmatch(segment) for segment in template.split("/")):
        raise TypeError(f"{template}: a segment of a path is a word or a parameter")
