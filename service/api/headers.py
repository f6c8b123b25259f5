"""What a request's scope keeps for all that handle it: its headers by name, its route and its limits."""

from __future__ import annotations

from starlette.types import Scope

FIRST_VALUES = "service.headers"
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
