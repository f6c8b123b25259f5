"""What a request's scope keeps for all that handle it: its headers by name, its query parameters and its route."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import Scope

FIRST_VALUES = "service.headers"
PARAMETERS = "service.query"
ROUTE = "service.route"
"""Where a request's scope keeps the template of its path, once it is found."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the first value of each header by its lower-case name.

    The dictionary is made once for each request. Starlette's `Headers` compares all names at each access (1 µs).
    """
    headers: dict[bytes, bytes] | None = scope.get(FIRST_VALUES)
    if headers is None:
        headers = scope[FIRST_VALUES] = dict(scope["headers"][::-1])
    return headers


def query_of(scope: Scope) -> list[tuple[str, str]]:
    """Return the names and values of all query parameters, in order; parsed once for each request."""
    parameters: list[tuple[str, str]] | None = scope.get(PARAMETERS)
    if parameters is None:
        query = scope["query_string"]
        parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else []
        scope[PARAMETERS] = parameters
    return parameters
