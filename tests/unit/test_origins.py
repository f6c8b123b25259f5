"""Which origins may subscribe and read, and what CORS_ORIGINS accepts."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from starlette.requests import HTTPConnection

from service.api.origins import Origins
from service.core.setting_sources import check_origin

PROXY = (ip_network("10.0.0.0/8"),)


def connection(
    origin: str | None, *, host: str = "tasks.example", peer: str = "192.0.2.1", **headers: str
) -> HTTPConnection:
    """Return a request of a page of this origin."""
    named = {"host": host, **({"origin": origin} if origin is not None else {}), **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    return HTTPConnection({"type": "http", "headers": raw, "client": (peer, 4711)})


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "tasks.example", True),
        ("https://tasks.example", "tasks.example", True),
        ("http://tasks.example", "tasks.example", True),  # a proxy may terminate TLS
        ("https://Tasks.Example", "tasks.example", True),
        ("https://tasks.example", "TASKS.example:443", True),
        ("https://tasks.example:443", "tasks.example", True),
        ("https://tasks.example:8443", "tasks.example:8443", True),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:8000", True),
        ("https://tasks.example", "tasks.example:80", False),
        ("https://tasks.example:8443", "tasks.example", False),
        ("https://tasks.example.foe.example", "tasks.example", False),
        ("null", "tasks.example", False),
        ("", "", False),
        ("https://tasks.example:port", "tasks.example", False),
    ],
)
def test_the_services_own_origin_is_allowed(origin: str | None, host: str, *, is_allowed: bool) -> None:
    assert Origins(()).allows(connection(origin, host=host)) is is_allowed


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ("capacitor://localhost", "capacitor://localhost", True),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop", True),
        ("null", "null", True),
        ("*", "https://any.example", True),
        ("https://*.example.org", "https://a.example.org", True),
        ("https://*.example.org", "https://a.b.example.org", True),
        ("https://*.example.org", "https://example.org", False),
        ("https://*.example.org", "http://a.example.org", False),
        ("https://*.example.org", "https://a.example.org:8443", False),
        ("https://*.example.org", "https://foe.example/.example.org", False),
        ("https://*.example.org", "https://aXexample.org", False),
        ("https://*.example.org:8443", "https://a.example.org:8443", True),
    ],
)
def test_a_configured_origin_is_allowed(allowed: str, origin: str, *, is_allowed: bool) -> None:
    assert Origins([check_origin(allowed)]).allows(connection(origin)) is is_allowed


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_allowed"),
    [
        ("10.1.2.3", "tasks.example", True),
        ("192.0.2.1", "tasks.example", False),
        ("10.1.2.3", "x, tasks.example", True),
    ],
)
def test_a_trusted_proxy_may_name_the_host(peer: str, forwarded: str, *, is_allowed: bool) -> None:
    request = connection("https://tasks.example", host="api:8000", peer=peer, x_forwarded_host=forwarded)
    assert Origins((), trusted_proxies=PROXY).allows(request) is is_allowed


def test_origins_are_kept_as_browsers_write_them() -> None:
    assert check_origin("HTTPS://App.Example:8443") == "https://app.example:8443"
