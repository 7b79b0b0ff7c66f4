"""Words and phrases of nft that our tables share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from ..model import FREE, Network
from ..prefixes import LOOPBACK, TRANSIT

ICMP_ERRORS = "{ destination-unreachable, source-quench, time-exceeded, parameter-problem }"
"""ICMP messages that quote the packet they are about (RFC 792, RFC 1812 4.3.2.3)."""
LOCAL = (LOOPBACK, TRANSIT)
"""What must never arrive from, or leave to, anything but lo and our bridges."""


def chain(kind: str, network: Network) -> str:
    """The name of the network's chain, or set, of a kind."""
    return f"{kind}-{network.loop_prefix.network_address}"


def block(kind: str, network: Network, rules: Iterable[str]) -> list[str]:
    """The lines of a chain with these rules."""
    return [f"chain {chain(kind, network)} {{", *(f"\t{rule}" for rule in rules), "}"]


def move(field: str, prefix: IPv4Network) -> str:
    """Keep the host number of ``field``, replace its prefix."""
    return f"{field} set {field} & {prefix.hostmask} | {prefix.network_address}"


def braces(elements: Iterable[str]) -> str:
    """A set, or a map, without a name."""
    return f"{{ {', '.join(elements)} }}"


FEW = 2
"""So many networks are told one by one sooner than by a look-up; the third of three would lose by it."""


def by_bridge(field: str, kind: str, networks: Sequence[Network]) -> str:
    """Rules that lead to the network's chain of a kind, by the name of its bridge, with which ``field`` ends."""
    targets = [(f'"{network.bridge}"', f"goto {chain(kind, network)}") for network in networks]
    if len(targets) <= FEW:
        return "".join(f"\t\t{field} {bridge} {target}\n" for bridge, target in targets)
    return f"\t\t{field} vmap {braces(' : '.join(each) for each in targets)}\n"


def unreserved(field: str, prefix: IPv4Network, reserved: str) -> str:
    """``field`` is in ``prefix`` and not in the set ``reserved``."""
    return f"{field} {prefix} {field} != @{reserved}"


SEEN_SIZE = 1024
"""Senders that are remembered for a network: enough for people, not enough to fill the kernel's memory."""
SEEN_TIMEOUT = "30m"


def seen(network: Network) -> str:
    """The set of what was sent with an address that is not its sender's, be it let in or dropped."""
    flags = f"size {SEEN_SIZE}; flags dynamic,timeout; timeout {SEEN_TIMEOUT};"
    return f"set {chain('seen', network)} {{ type ether_addr . ipv4_addr; {flags} }}"


def remember(field: str, network: Network) -> str:
    """A rule of its own, since one that finds the set full goes no further: what follows it must not depend on it."""
    return f"update @{chain('seen', network)} {{ ether saddr . {field} }}"


def host_numbers(network: Network) -> list[int]:
    """Those that no guest can have: the prefix itself, gateway, host, broadcast."""
    return sorted({0, network.gateway, network.host, network.loop_prefix.num_addresses - 1})


def is_free(network: Network) -> bool:
    """May its guests use what nobody has reserved?"""
    return network.addresses == FREE


def drop_local(*fields: str) -> str:
    """Rules that drop what has a LOCAL address in one of the fields."""
    return "".join(f"\t\t{field} {prefix} drop\n" for field in fields for prefix in LOCAL)
