"""Which addresses and URLs of strangers may be reached: the rules of `egress.py`, without the sockets.

`ipaddress.is_global` is not used: it calls NAT64, 6to4, multicast and site-local addresses global, and through those a
loopback or private address can be reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AddressRules", "EgressRefused", "Target", "read_url", "usual"]

# The special-purpose registries of IANA, multicast, what once was site-local, and a cloud's host service.
NOT_PUBLIC: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # All but 2000::/3, the only part of IPv6 that is given out: what translates to IPv4, local and multicast
        # addresses are elsewhere; and within it documentation, tunnels and protocols.
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
USUAL_PORTS = frozenset({443, 80, 8443})
SCHEMES = ("http", "https")


class EgressRefused(Exception):
    """Policy forbids the request, whenever it is made; nothing was sent. The sentence names neither path nor query."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL as it will be requested. `usual`: https on a usual port, so that any public address may be its."""

    url: URL
    usual: bool


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Public addresses, and those in the networks an operator has listed."""

    allowed: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[str]) -> AddressRules:
        """Read networks like 10.0.0.0/8. Raises ValueError for what is none."""
        return cls(tuple(ip_network(network) for network in networks))

    def admit(self, address: tuple[Any, ...], *, only_listed: bool) -> bool:
        """Tell whether a socket may be connected to `address`, as `getaddrinfo` writes it.

        `only_listed`: being public is not enough. An address with a scope id is never admitted.
        """
        _, _, *more = address
        if "%" in address[0] or (more and more[-1]):
            return False
        concrete = unwrapped(ip_address(address[0]))
        if any(concrete in network for network in self.allowed):
            return True
        return not only_listed and is_public(concrete)

    def refuse_literal(self, target: Target) -> None:
        """Raise EgressRefused when the URL itself names an address that may not be reached.

        Only for the sake of an early and clear answer: what counts is the address that a socket connects to.
        """
        try:
            literal = ip_address(target.url.host or "")
        except ValueError:
            return
        if not self.admit((str(literal), 0), only_listed=not target.usual):
            raise EgressRefused(refusal(target))


def unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return what an IPv4-mapped address (`::ffff:10.0.0.1`) stands for."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether nobody's own network, host or group has that address."""
    return not any(address in network for network in NOT_PUBLIC)


def usual(url: URL) -> bool:
    """Tell whether a URL needs nobody's leave but a public address."""
    return url.scheme == "https" and url.port in USUAL_PORTS


def refusal(target: Target) -> str:
    """Say why an address behind the URL was refused."""
    listed = "unless EGRESS_ALLOWED_CIDRS lists it"
    if target.usual:
        return f"the address of {target.url.host} is not a public one, which is not reached {listed}"
    return f"{target.url.host} is not reached by {target.url.scheme} on port {target.url.port} {listed}"


def read_url(text: str) -> Target:
    """Read a URL that may be requested at all. Raises EgressRefused, whose sentence does not repeat it."""
    if any(character <= " " or character in "\\\x7f" for character in text):
        raise EgressRefused("the URL holds a blank, a control character or a backslash")
    try:
        url = URL(text)
        parts = urlsplit(text)
        nameless = not url.host or url.port is None
    except ValueError:
        raise EgressRefused("the URL cannot be read: it must be like https://host/path") from None
    if url.scheme not in SCHEMES or nameless:
        raise EgressRefused("the URL is not one with https and a host")
    if "@" in parts.netloc:
        raise EgressRefused("the URL holds a login, which would be sent to whoever answers: use a header instead")
    if "%" in (url.host or ""):
        raise EgressRefused("the URL's host holds a %, as an address with a scope id does")
    return Target(url, usual(url))
