"""Decides which network addresses may be connected to: public ones and configured networks. Pure.

An address may contain another: IPv4 inside IPv6 (mapped, compatible), behind a translator (NAT64),
in a tunnel (6to4, Teredo, ISATAP). The packets reach the inner address, so every contained address
must be allowed. Notations (decimal, octal, short) do not matter: the resolver has already parsed
the address.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from cacheapp.downloads.plan import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254")
)
_NOT_PUBLIC: tuple[tuple[str, Network], ...] = tuple(
    (kind, ipaddress.ip_network(network))
    for kind, network in (
        ("this network", "0.0.0.0/8"),
        ("private", "10.0.0.0/8"),
        ("shared by a carrier (CGNAT)", "100.64.0.0/10"),
        ("loopback", "127.0.0.0/8"),
        ("link-local", "169.254.0.0/16"),
        ("private", "172.16.0.0/12"),
        ("reserved", "192.0.0.0/24"),
        ("documentation", "192.0.2.0/24"),
        ("private", "192.168.0.0/16"),
        ("for benchmarks", "198.18.0.0/15"),
        ("documentation", "198.51.100.0/24"),
        ("documentation", "203.0.113.0/24"),
        ("multicast", "224.0.0.0/4"),
        ("reserved", "240.0.0.0/4"),
        ("unspecified", "::/128"),
        ("loopback", "::1/128"),
        ("for address translation", "64:ff9b:1::/48"),
        ("discard-only", "100::/64"),
        ("documentation", "2001:db8::/32"),
        ("documentation", "3fff::/20"),
        ("private", "fc00::/7"),
        ("link-local", "fe80::/10"),
        ("site-local", "fec0::/10"),
        ("multicast", "ff00::/8"),
    )
)
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_NOT_COMPATIBLE = frozenset([ipaddress.ip_address("::"), ipaddress.ip_address("::1")])
"""In `_COMPATIBLE`, but without an IPv4 address inside."""


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks; raise `ValueError` for an invalid one."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def refusal_reason(text: str, allowed: Iterable[Network] = ()) -> str | None:
    """Return why a resolved address must not be connected to, or `None` if it may."""
    address = ipaddress.ip_address(text.partition("%")[0])
    allowed = tuple(allowed)
    for found in _embedded(address):
        if _is_in(found, allowed):
            continue
        kind = _kind(found)
        if kind is not None:
            inside = "" if found == address else f", which leads to {found}"
            return f"address {address}{inside} is {kind}"
    return None


def _kind(address: Address) -> str | None:
    if address in _METADATA:
        return "a cloud's metadata service"
    for kind, network in _NOT_PUBLIC:
        if address.version == network.version and address in network:
            return kind
    if address.version == 6 and not _is_in(address, (_GLOBAL_IPV6, _NAT64)):  # noqa: PLR2004
        embedded = list(_embedded(address))
        return None if len(embedded) > 1 else "not public"
    return None


def _embedded(address: Address) -> Iterator[Address]:
    """Yield the address and those that it contains."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address) or address in _NOT_COMPATIBLE:
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif _is_in(address, (_NAT64, _COMPATIBLE)) or _is_isatap(address):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_isatap(address: Address) -> bool:
    return int(address) >> 32 & 0xFDFFFFFF == 0x5EFE  # noqa: PLR2004 (RFC 5214; one bit is free)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
