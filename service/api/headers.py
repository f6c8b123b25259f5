"""What a request's scope keeps for all that handle it: its headers by name, its query parameters and its route."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import parse_qsl

from starlette.types import Scope

FIRST_VALUES = "service.headers"
PARAMETERS = "service.query"
MAX_KEPT_QUERIES, MAX_KEPT_BYTES = 1000, 500
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


def query_of(scope: Scope) -> Sequence[tuple[str, str]]:
    """Return the names and values of all query parameters, in order; parsed once for each request."""
    parameters: Sequence[tuple[str, str]] | None = scope.get(PARAMETERS)
    if parameters is None:
        query = scope["query_string"]
        parameters = scope[PARAMETERS] = (_parse_once if len(query) <= MAX_KEPT_BYTES else _parse)(query)
    return parameters


def _parse(query: bytes) -> Sequence[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else ()


_parse_once = lru_cache(MAX_KEPT_QUERIES)(_parse)  # clients repeat their lists: parsing two parameters takes 3.4 us
