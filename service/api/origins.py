"""The origins whose web pages may call the service (RFC 6454; CORS is part of the Fetch standard)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from service.api.client_address import is_trusted
from service.ratelimit.login_limiter import Network

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """The origins of CORS_ORIGINS, and the service's own."""

    def __init__(self, allowed: Iterable[str], *, trusted_proxies: tuple[Network, ...] = ()) -> None:
        allowed = tuple(allowed)
        self._exact = frozenset(origin for origin in allowed if "://*." not in origin)
        self._wildcards = "|".join(
            re.escape(origin).replace(r"://\*\.", r"://[^/:]+\.") for origin in allowed if "://*." in origin
        )
        self._trusted_proxies = trusted_proxies

    def cors_options(self) -> dict[str, Any]:
        """Return the options of Starlette's middleware; empty if no origin is configured."""
        if not (self._exact or self._wildcards):
            return {}
        return {"allow_origins": sorted(self._exact), "allow_origin_regex": self._wildcards or None}

    def allows(self, request: HTTPConnection) -> bool:
        """Return whether the page that sent a request may subscribe.

        Allowed are requests without an origin (no browser), the service's own origin, and those in CORS_ORIGINS.
        """
        origin = request.headers.get("origin")
        if origin is None or not self._exact.isdisjoint({origin, "*"}):
            return True
        if self._wildcards and re.fullmatch(self._wildcards, origin):
            return True
        scheme, _, authority = origin.partition("://")
        own = _host_and_port(self._host_of(request), scheme)
        return own is not None and own == _host_and_port(authority, scheme)

    def _host_of(self, request: HTTPConnection) -> str:
        """Return the host that the client asked for, which a trusted proxy may have put into a header of its own."""
        forwarded = request.headers.get("x-forwarded-host", "").rpartition(",")[2].strip()
        is_proxy = request.client is not None and is_trusted(request.client.host, self._trusted_proxies)
        return forwarded if forwarded and is_proxy else request.headers.get("host", "")


def _host_and_port(authority: str, scheme: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
    except ValueError:
        return None
    return (parts.hostname, port or DEFAULT_PORTS.get(scheme.lower())) if parts.hostname else None
