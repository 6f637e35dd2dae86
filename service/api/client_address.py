"""The client's address: the connection's other end, or what the proxies there say of whom they speak for.

X-Forwarded-For is whatever a client cares to send; each proxy appends the address that it was asked from. So the list
is read from its right end, and only as long as the one who wrote an entry is a proxy that the operator named.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from litestar.types import Scope

Networks = tuple[IPv4Network | IPv6Network, ...]
_Address = IPv4Address | IPv6Address
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")


def of(scope: Scope, trusted: Networks) -> str | None:
    """The address of the request's client, without a port; None when the connection has none, as a Unix socket's."""
    peer = scope.get("client")
    if peer is None:
        return None
    address = _parsed(peer[0])
    if address is None or not _is_in(address, trusted):
        return str(address or peer[0])
    given = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    return str(_first_untrusted(address, reversed(given.split(",")), trusted))


def _first_untrusted(peer: _Address, forwarded: Iterable[str], trusted: Networks) -> _Address:
    """The first address that is no trusted proxy's; the last one that can be believed where an entry is no address."""
    believed = peer
    for entry in forwarded:
        address = _entry(entry.strip())
        if address is None:
            break
        believed = address
        if not _is_in(address, trusted):
            break
    return believed


def _entry(text: str) -> _Address | None:
    """The address of 203.0.113.7, 203.0.113.7:4711, 2001:db8::1, [2001:db8::1] or [2001:db8::1]:4711."""
    found = _WITH_PORT.fullmatch(text)
    # A zone such as %eth0 means something on the machine that wrote it alone, and may be any text.
    return None if "%" in text else _parsed(found[1] or found[2] if found else text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: _Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
