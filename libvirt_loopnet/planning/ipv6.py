"""What our networks need of the host in IPv6, beside their rules: an address, a route, sysctls. Pure.

Where libvirt gives a network IPv6 itself all that is libvirt's. Where the host has no IPv6, or none switched on,
nothing of it is done.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from ipaddress import IPv6Address, IPv6Network

from ..ipv6 import LENGTH
from ..model import NONE, Network
from ..records import NamedTuple

METRIC = 127
"""Marks our routes, since /proc/net/ipv6_route tells no protocol."""
FORWARDING = "net/ipv6/conf/all/forwarding=1"
MARK = "net/ipv6/conf/lo/forwarding=0"
"""That forwarding is on by us alone: who switches it on for all interfaces, be it on or not, does so for lo as well
(addrconf_forward_change() in the kernel's addrconf.c), where it means nothing. Docker looks
first, and doesn't write."""
_OFF = "net/ipv6/conf/all/forwarding=0"
_BRIDGE = ("addr_gen_mode=0", "accept_ra=0", "disable_ipv6=0")
"""Its fe80 address is made of its MAC address, as the rules have it; it learns nothing; and libvirt has switched
its IPv6 off, which goes last (ip-sysctl.rst)."""


class Route6(NamedTuple):
    """A route in any table."""

    prefix: IPv6Network
    dev: str
    metric: int
    learned: bool = False
    """By the kernel itself, from a router advertisement."""


class Observed6(NamedTuple):
    """What the kernel says of IPv6."""

    enabled: bool = False
    """There is IPv6, and it is not switched off on all interfaces."""
    has_table: bool = False
    """Our table may be there."""
    addresses: frozenset[tuple[str, IPv6Address]] = frozenset()
    routes: tuple[Route6, ...] = ()
    settings: frozenset[str] = frozenset()
    """Of what settings() and FORWARDING have, the lines that hold."""
    accept_ra: frozenset[str] = frozenset()
    """Devices on which the kernel hears router advertisements only while it does not forward (accept_ra 1)."""
    forwarding: frozenset[str] = frozenset()
    """Devices that have forwarding switched on for themselves, and what that makes of them, while it is off for all."""


def settings(bridges: Iterable[str]) -> list[str]:
    """The sysctls of these bridges."""
    return [f"net/ipv6/conf/{bridge}/{setting}" for bridge in bridges for setting in _BRIDGE]


def uplinks(routes: Iterable[Route6]) -> list[str]:
    """Devices of default routes, of all tables, the first choice first."""
    found = sorted((r for r in routes if not r.prefix.prefixlen and r.dev != "lo"), key=lambda r: r.metric)
    return [*dict.fromkeys(route.dev for route in found)]


def is_router(observed: Observed6, networks: Sequence[Network]) -> bool:
    """May guests take the host for their router in IPv6: has it a way out, and does it forward, or may it?

    It is no reason for forwarding that the host would lose its own default route by it: where the kernel learns
    that from router advertisements, it stops listening (ip-sysctl.rst, accept_ra).
    """
    bridges = [network.bridge for network in networks]
    out = {*uplinks(observed.routes)} - {*bridges}
    if not observed.enabled or not out:
        return False
    return FORWARDING in observed.settings or not is_endangered(observed)


def is_endangered(observed: Observed6) -> bool:
    """Would the host lose a default route if it forwarded?"""
    return any(
        route.learned and not route.prefix.prefixlen and route.dev in observed.accept_ra
        for route in observed.routes
    )


def remove(observed: Observed6, networks: Sequence[Network], ours: Container[str]) -> list[str]:
    """Sysctls that switch IPv6 off again where it is on by us and for us alone: on bridges, and forwarding.

    ``ours`` are the devices of our networks by what IPv4 tells; others may have routes of this metric, too.
    """
    return [*_bridges_off(observed, networks, ours), *_forwarding_off(observed, networks, ours)]


def _bridges_off(observed: Observed6, networks: Sequence[Network], ours: Container[str]) -> list[str]:
    """Of those that have a prefix from us which they are no more to have."""
    wanted = {(n.bridge, n.ipv6) for n in networks}
    marked = [route for route in observed.routes if route.metric == METRIC and route.dev in ours]
    stale = {route.dev for route in marked if (route.dev, route.prefix) not in wanted}
    return [f"net/ipv6/conf/{dev}/disable_ipv6=1" for dev in sorted(stale)]


def _forwarding_off(observed: Observed6, networks: Sequence[Network], ours: Container[str]) -> list[str]:
    """Who finds forwarding on may count on it and leaves no trace (MARK), so it stays where anybody could need it."""
    by_us = {FORWARDING, MARK} <= observed.settings
    needed = any(map(_forwards, networks)) or _others_may_forward(observed, ours)
    return [_OFF] if by_us and not needed else []


def _forwards(network: Network) -> bool:
    return bool(network.ipv6_prefixes) and network.internet != NONE


def _others_may_forward(observed: Observed6, ours: Container[str]) -> bool:
    """What is forwarded leaves by a route, and so does what is answered: who forwards for others than us has routes by
    two devices, be it with addresses there or without. One, beside ours, is the host's own way out.

    A router between hosts on one and the same device is taken for none; it has to switch forwarding on itself, not
    look whether it is on.
    """
    sides = {dev for dev, address in observed.addresses if not address.is_link_local}
    sides |= {r.dev for r in observed.routes if not (r.prefix.is_link_local or r.prefix.is_multicast)}
    return len({dev for dev in sides if dev != "lo" and dev not in ours}) > 1


def add(observed: Observed6, networks: Sequence[Network]) -> tuple[list[str], list[str]]:
    """Sysctls to set, then lines for ``ip``."""
    ours = [network for network in networks if network.ipv6]
    if not observed.enabled or not ours:
        return [], []
    sysctls = [line for line in settings(n.bridge for n in ours) if line not in observed.settings]
    leaving = any(map(_forwards, ours))
    if leaving and FORWARDING not in observed.settings and is_router(observed, networks):
        # To switch it off again is to do so for each device.
        sysctls += [FORWARDING] if observed.forwarding else [FORWARDING, MARK]
    present = {(route.dev, route.prefix) for route in observed.routes if route.metric == METRIC}
    lines: list[str] = []
    for network in ours:
        for address in network.ipv6_own:
            if (network.bridge, address) not in observed.addresses:
                # No other host can have it; a tentative one would not be dnsmasq's to answer from.
                lines.append(f"address add {address}/{LENGTH} dev {network.bridge} nodad")
        # In table local, as in IPv4: before every rule of a VPN.
        if (network.bridge, network.ipv6) not in present:
            lines.append(f"route add unicast {network.ipv6} dev {network.bridge} table local metric {METRIC}")
    return sysctls, lines
