"""The address that limits count a client under."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from service.ratelimit.login_limiter import Network

# 192.0.2.1:4711, [2001:db8::1]:4711 and [2001:db8::1], as some proxies write addresses.
WITH_PORT = re.compile(r"^(?:([0-9.]+):\d+|\[([0-9a-fA-F:.]+)\](?::\d+)?)$")


def client_address(peer: str | None, forwarded: Iterable[str], trusted: tuple[Network, ...]) -> str:
    """Return the address of the client: the peer's, unless the peer is a trusted proxy.

    After trusted proxies it is the right-most entry of `X-Forwarded-For` that is not trusted. An IPv6 address becomes
    its /64, because one client has all addresses of it.
    """
    hops = [
        address
        for line in forwarded
        for hop in line.split(",")
        if (address := WITH_PORT.sub(r"\1\2", hop.strip(' \t"')))
    ]
    address = peer or "unknown"
    while is_trusted(address, trusted) and hops:
        address = hops.pop()
    return _grouped(address)


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Return whether the address belongs to a trusted proxy."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _grouped(address: str) -> str:
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), 64), strict=False))
    return str(parsed or "unknown")


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
