"""Ports of guests that others may reach: how they are written, and which exclude each other. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ..errors import ConflictError, InputError
from ..ipv6 import LINK_LOCAL
from ..model import (
    ANY_ADDRESS,
    EVERYBODY,
    NONE,
    PROTOCOLS,
    Network,
    Publication,
    Published,
    Reservation,
)
from ..prefixes import TRANSIT, parse_prefix
from ..validation import shown

_FORM = "write it as PORT:PORT or HOST-ADDRESS:PORT:PORT, with /udp for UDP"
_SAME = "both ranges must have the same number of ports, as in 8000-8010:8000-8010"
_NOT_THE_LAN = (
    (IPv4Network("127.0.0.0/8"), "only this host can reach, and it reaches the guest already"),
    (IPv4Network("247.0.0.0/8"), "loopnet uses inside the host"),
    (IPv4Network("224.0.0.0/4"), "is a multicast address"),
    (IPv4Network("0.0.0.0/8"), "no host can have; leave it out for all addresses"),
    (IPv4Network("255.255.255.255/32"), "is for broadcasts"),
)


def parse_publication(text: str) -> Publication:
    """``[HOST-ADDRESS:]PORT[-PORT]:PORT[-PORT][/tcp|/udp][@PREFIX]``; the first ports are the host's.
    Raises InputError."""
    rest, at, prefix = text.partition("@")
    clients = parse_clients(prefix) if at else EVERYBODY
    ports, slash, protocol = rest.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise InputError(f"{shown(text)}: protocol {shown(protocol)} is neither tcp nor udp; {_FORM}")
    parts = ports.split(":")
    if len(parts) not in (2, 3):
        raise InputError(f"{shown(text)} does not name a port to publish; {_FORM}")
    address = _address(text, parts[0]) if len(parts) == 3 else ANY_ADDRESS
    here, there = (_ports(text, part) for part in parts[-2:])
    if len(here) != len(there):
        counts = f"{parts[-2]} has {len(here)}, {parts[-1]} has {len(there)}"
        raise InputError(f"{shown(text)}: {counts}; {_SAME}")
    return limited(Publication(protocol or "tcp", address, here[0], there[0], len(here)), clients)


def limited(publication: Publication, clients: IPv4Network | IPv6Network) -> Publication:
    """The same for ``clients`` alone. Raises InputError."""
    if clients.version == 6 and publication.address != ANY_ADDRESS:
        raise InputError(
            f"{publication.address} is of IPv4, {clients} of IPv6, and nobody comes from there; leave the address out"
        )
    return publication._replace(clients=clients)


def parse_clients(text: str) -> IPv4Network | IPv6Network:
    """The prefix of those who may. Raises InputError."""
    if ":" in text:
        return _clients6(text)
    prefix = parse_prefix(text, "prefix of clients")
    if prefix.subnet_of(TRANSIT):
        raise InputError(
            f"{prefix} is inside the host only; guests are known by their addresses in 127.0.0.0/8"
        )
    return prefix


def _clients6(text: str) -> IPv6Network:
    what = f"prefix of clients {shown(text)}"
    address, slash, length = text.partition("/")
    try:
        if "%" in address or (slash and not (length.isascii() and length.isdigit())):
            raise ValueError
        prefix = IPv6Network((IPv6Address(address), int(length or "128")), strict=False)
    except ValueError:
        raise InputError(f"{what} is not an IPv6 prefix; write it as 2001:db8:1::/64") from None
    if not slash:
        raise InputError(f"{what} has no length; write it as {address}/128")
    if prefix.network_address != IPv6Address(address):
        raise InputError(f"{what} has host bits set; did you mean {prefix}?")
    if prefix.subnet_of(LINK_LOCAL) or prefix.is_multicast:
        raise InputError(
            f"{what}: nobody is forwarded from there; use one of the addresses that clients have"
        )
    return prefix


def _address(text: str, part: str) -> IPv4Address:
    try:
        address = IPv4Address(part)
    except ValueError:
        raise InputError(f"{shown(text)}: {shown(part)} is not an IPv4 address; {_FORM}") from None
    if address != ANY_ADDRESS:
        for prefix, why in _NOT_THE_LAN:
            if address in prefix:
                raise InputError(f"{address} {why}; give an address that the LAN knows this host by")
    return address


def _ports(text: str, part: str) -> range:
    first, dash, last = part.partition("-")
    if not (dash and first):
        return range(_port(text, part), _port(text, part) + 1)
    ports = range(_port(text, first), _port(text, last) + 1)
    if len(ports) < 2:
        raise InputError(f"{shown(text)}: {part} is not a range of ports; {_SAME}")
    return ports


def _port(text: str, part: str) -> int:
    plain = part.isascii() and part.isdigit() and part[0] != "0" and len(part) < 6
    if not plain or int(part) > 65535:
        raise InputError(f"{shown(text)}: {shown(part)} is not a port from 1 to 65535; {_FORM}")
    return int(part)


def overlap(one: Publication, other: Publication) -> bool:
    """Do both claim the same packets? All addresses is each of them, as with listening sockets. Clients of IPv4 and of
    IPv6 are never the same."""
    if not ((one.is_ipv4 and other.is_ipv4) or (one.is_ipv6 and other.is_ipv6)):
        return False
    first, second = sorted((one.ports, other.ports), key=lambda ports: ports.start)
    same_port = one.protocol == other.protocol and second.start in first
    return same_port and (one.address == other.address or ANY_ADDRESS in (one.address, other.address))


def clash(publications: Iterable[Publication]) -> Publication | None:
    """The first that overlaps one before it."""
    by_port: dict[tuple[str, int], list[Publication]] = {}
    for each in publications:
        for port in each.ports:
            same = by_port.setdefault((each.protocol, port), [])
            if any(overlap(each, other) for other in same):
                return each
            same.append(each)
    return None


def check_free(wanted: Publication, kept: Mapping[str, Sequence[Reservation]]) -> None:
    """Raise ConflictError if one of these reservations, by network, has what ``wanted`` claims."""
    for name, reservations in kept.items():
        for reservation in reservations:
            for other in reservation.published:
                if overlap(wanted, other):
                    who = reservation.name or reservation.mac
                    raise ConflictError(
                        f"{wanted} can't be published: {other} of {who} in network {name} already is; "
                        f"first run: loopnet unpublish {who} {other}"
                    )


def published(
    networks: Iterable[Network], kept: Mapping[str, Sequence[Reservation]]
) -> tuple[Published, ...]:
    """What is published in these networks, isolated ones excepted. Of files that were edited to contradict
    each other the first holds; a number that guests can't have any more has no ports."""
    found: list[Published] = []
    for network in sorted(network for network in networks if network.internet != NONE):
        for reservation in kept.get(network.name, ()):
            number = reservation.number
            if number in network.guest_numbers and number not in (network.gateway, network.host):
                found += [
                    Published(network.name, number, publication)
                    for publication in reservation.published
                    if not any(overlap(publication, other.publication) for other in found)
                ]
    return tuple(found)


def spare_taken(published: Iterable[Published], taken: Container[tuple[str, int]]) -> tuple[Published, ...]:
    """The same, less what a program has at 127.0.0.1: ``taken``, by protocol and port."""
    return tuple(
        each._replace(
            taken=tuple(p for p in each.publication.ports if (each.publication.protocol, p) in taken)
        )
        for each in published
    )
