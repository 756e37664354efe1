"""Check of the addresses that webhooks go to, so that callers reach no server of the gateway's own network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from services.common.errors import BackendUnavailableError, InvalidRequestError

Address = IPv4Address | IPv6Address
_NAT64: Final = IPv6Network("64:ff9b::/96")
_UNICAST: Final = IPv6Network("2000::/3")
"""The only part of IPv6 that is given to networks of the internet."""
_REFUSED: Final = tuple(
    ip_network(name)
    for name in (
        # The metadata server of Azure, which answers at a public address.
        "168.63.129.16/32",
        # Blocks for protocols and for special uses (IANA), of which Python counts some, or parts, as public.
        *("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24"),
        *("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"),
    )
)

_LOOKUPS: Final = ThreadPoolExecutor(8, "lookup")
"""Threads of their own: name servers of callers may answer late, and the other threads of the process serve all callers."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL.

    Attributes:
        host: name or address in the URL, which TLS checks the certificate for.
        authority: the header `Host`.
        port: port of TCP.
        path: path with the query.
        tls: whether the URL is https.
        addresses: addresses of the host, all of them allowed.
    """

    host: str
    authority: str
    port: int
    path: str
    tls: bool
    addresses: tuple[str, ...]


def networks_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks of a setting: CIDRs with commas between them."""
    return tuple(ip_network(name.strip()) for name in text.split(",")) if text else ()


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    An IPv6 address that a translator or a tunnel carries to an IPv4 address (mapped, NAT64, 6to4) is judged by the IPv4 address. Of
    other IPv6 addresses, global unicast addresses alone are public.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if (carried := address.ipv4_mapped or address.sixtofour) is not None:
            return is_public(carried)
        if address not in _UNICAST:
            return False
    refused = address.is_multicast or any(address in network for network in _REFUSED)
    return address.is_global and not refused


def is_allowed(address: Address, networks: Sequence[IPv4Network | IPv6Network], *, tls: bool) -> bool:
    """Return whether an event may go to an address: a public one over https, or any in the networks of the setting."""
    return any(address in network for network in networks) or (tls and is_public(address))


async def checked_target(url: str, networks: Sequence[IPv4Network | IPv6Network]) -> Target:
    """Return a URL with the addresses of its host, each of which an event may go to.

    Args:
        url: https://HOST[:PORT]/PATH, or http://.
        networks: further networks that events may go to.

    Raises:
        InvalidRequestError: the URL is none, or an address is refused.
        BackendUnavailableError: the host has no address now.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or parts.username is not None or not host:
            raise ValueError
        if parts.scheme not in {"https", "http"} or parts.fragment or port == 0:
            raise ValueError
    except ValueError:
        raise InvalidRequestError(
            f"{url[:200]!r} is not https://HOST[:PORT]/PATH (no user, password, fragment or spaces)", field="url", named=True
        ) from None
    tls = parts.scheme == "https"
    if not tls and not networks:
        raise InvalidRequestError("http is not allowed: give an https URL", field="url", named=True)
    port = port or (443 if tls else 80)
    look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        entries = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look)
    except UnicodeError:
        raise InvalidRequestError(f"{host[:200]!r} is no name of a host", field="url", named=True) from None
    except OSError as problem:
        raise BackendUnavailableError(f"url: the host {host[:200]!r} has no address: {problem}") from None
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
    for address in addresses:
        if not is_allowed(ip_address(address), networks, tls=tls):
            # The text does not repeat the address: callers would learn addresses of the internal network.
            raise InvalidRequestError(
                f"the host {host[:200]!r} has an address that webhooks must not reach{'' if tls else ' over http'}: "
                "give a public https address, or ask the operator for DUBSTAGE_WEBHOOK_NETWORKS",
                field="url",
                named=True,
            )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, parts.netloc, port, path, tls, addresses)
