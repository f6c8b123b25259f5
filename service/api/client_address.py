"""The address that a request is counted under."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from service.ratelimit.login_limiter import Network

# 192.0.2.1:4711, [2001:db8::1]:4711 and [2001:db8::1], as some proxies write addresses.
WITH_PORT = re.compile(r"^(?:([0-9.]+):\d+|\[([0-9a-fA-F:.]+)\](?::\d+)?)$")


def client_address(peer: str | None, forwarded: Iterable[str], trusted: tuple[Network, ...]) -> str:
    """Give the address that a request is counted under.

    The peer's, or, where the peer is trusted, the right-most entry of `X-Forwarded-For` that is not; an IPv6 client is
    its /64, of which it has every address.
    """
    hops = [
        bare for line in forwarded for hop in line.split(",") if (bare := WITH_PORT.sub(r"\1\2", hop.strip(' \t"')))
    ]
    address = peer or "unknown"
    while is_trusted(address, trusted) and hops:
        address = hops.pop()
    return _grouped(address)


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Return whether the address is one of a trusted proxy."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _grouped(address: str) -> str:
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), 64), strict=False))
    return str(parsed or "unknown")


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
