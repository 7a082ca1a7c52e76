"""Which network addresses may be connected to: public ones, and those that a setting names. Pure.

An address may wear another one: IPv4 inside IPv6 (mapped, compatible), behind a translator (NAT64),
in a tunnel (6to4, Teredo, ISATAP). What it leads to is what counts, so every address that it contains must
be allowed. Forms of writing (decimal, octal, short) do not matter here: addresses come from the
resolver, after it has read them.
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
        ("shared by a carrier", "100.64.0.0/10"),
        ("loopback", "127.0.0.0/8"),
        ("link-local", "169.254.0.0/16"),
        ("private", "172.16.0.0/12"),
        ("reserved", "192.0.0.0/24"),
        ("documentation", "192.0.2.0/24"),
        ("private", "192.168.0.0/16"),
        ("a benchmark's", "198.18.0.0/15"),
        ("documentation", "198.51.100.0/24"),
        ("documentation", "203.0.113.0/24"),
        ("multicast", "224.0.0.0/4"),
        ("reserved", "240.0.0.0/4"),
        ("unspecified", "::/128"),
        ("loopback", "::1/128"),
        ("a translator's own", "64:ff9b:1::/48"),
        ("discarded", "100::/64"),
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


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks; raise `ValueError` for what is none."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def refusal_reason(text: str, allowed: Iterable[Network] = ()) -> str | None:
    """Return why `text`, an address as the resolver gave it, may not be connected to, or `None`."""
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
        worn = list(_embedded(address))
        return None if len(worn) > 1 else "not a public one"
    return None


def _embedded(address: Address) -> Iterator[Address]:
    """Yield the address and those that it contains."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
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
