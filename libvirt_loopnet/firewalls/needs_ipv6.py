"""What must pass in IPv6 for our networks, as sample packets. Pure.

Neighbour discovery is not tracked by conntrack, and answers have the addresses that new connections have: what of
these is let in, ``ct state`` has to say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv6Address

from ..ipv6 import LINK_LOCAL
from ..model import NONE, ROUTE, Network
from .needs import (
    CLIENT,
    NO_DHCP,
    NO_DNS,
    NO_GUEST,
    NO_INTERNET,
    NO_LAN,
    NO_PING,
    NOT_AMONG,
    REPLY,
    devices,
    directions,
    guest_of,
)
from .walk import ICMPV6, Packet
from .ways import EVERYWHERE, Ways

_ANYWHERE = IPv6Address("2620:fe::9")
_DHCP_SERVERS, _NODES = IPv6Address("ff02::1:2"), IPv6Address("ff02::1")
_SOLICITED = IPv6Address("ff02::1:ff00:1")
_FE80 = LINK_LOCAL.network_address + 0x5054FF00FE000002
"""Of some guest, or of the host."""
_UNTRACKED = "untracked"


def packets(
    networks: Iterable[Network],
    uplink: str,
    bridged: bool,
    published: Collection[str] = (),
    ways: Ways = EVERYWHERE,
) -> list[Packet]:
    """What must pass for those that have prefixes; the rest as in needs_ipv4.packets()."""
    found: list[Packet] = []
    for network in (network for network in networks if network.ipv6_prefixes):
        found += [*_to_host(network), *_from_host(network), *(_among_guests(network) if bridged else ())]
        if network.internet == NONE:
            continue
        if ways.limited:
            found += [p for each in devices(uplink, ways) for p in _by_way(network, *each)]
        elif uplink:
            found += [*_internet(network, uplink), *_inwards(network, uplink, network.name in published)]
    return found


def outs(networks: Iterable[Network], uplink: str) -> list[Packet]:
    """What guests send to the internet by ``uplink``."""
    open_ones = [network for network in networks if network.internet != NONE]
    return [next(iter(_by_way(network, uplink, ""))) for network in open_ones if network.ipv6_prefixes]


def _set(elements: Iterable[object]) -> str:
    return f"{{ {', '.join(map(str, elements))} }}"


def _guests(network: Network) -> Iterable[IPv6Address]:
    """One in each prefix."""
    return [prefix.network_address + guest_of(network) for prefix in network.ipv6_prefixes]


def _to_host(network: Network) -> Iterable[Packet]:
    hooks, bridge = ("prerouting", "input"), network.bridge
    by_guest = f'iifname "{bridge}" ip6 saddr {_set([*network.ipv6_prefixes, LINK_LOCAL])}'
    own, guest = network.ipv6_own[0], next(iter(_guests(network)))
    to_own = f"ip6 daddr {_set([LINK_LOCAL, *network.ipv6_own])}"
    dhcp = f'iifname "{bridge}" ip6 saddr {LINK_LOCAL} udp dport 547'
    dns = f"{by_guest} {to_own} meta l4proto {{ tcp, udp }} th dport 53"
    yield Packet(NO_DHCP, hooks, dhcp, bridge, "", _FE80, _DHCP_SERVERS, "udp", (546, 547), six=True)
    yield Packet(NO_DNS, hooks, dns, bridge, "", guest, own, "udp", (CLIENT, 53), six=True)
    icmp = f'iifname "{bridge}" meta l4proto {ICMPV6}'
    sides = (hooks, icmp, bridge, "")
    yield _icmp(NO_PING, *sides, guest, own, "echo-request", "new")
    for source in (guest, _FE80):
        yield _icmp(NO_GUEST, *sides, source, _SOLICITED, "nd-neighbor-solicit")
        yield _icmp(NO_GUEST, *sides, source, own, "nd-neighbor-advert")
    yield _icmp(NO_DHCP, *sides, _FE80, IPv6Address("ff02::2"), "nd-router-solicit")
    reply, ports = f"{by_guest} {REPLY}", (22, CLIENT)
    for source in _guests(network):
        yield Packet(NO_GUEST, hooks, reply, bridge, "", source, own, "tcp", ports, "established", six=True)


def _icmp(
    what: str,
    hooks: tuple[str, ...],
    match: str,
    iif: str,
    oif: str,
    source: IPv6Address,
    destination: IPv6Address,
    kind: str,
    state: str = _UNTRACKED,
) -> Packet:
    return Packet(
        what, hooks, match, iif, oif, source, destination, ICMPV6, (0, 0), state, six=True, kind=kind
    )


def _from_host(network: Network) -> Iterable[Packet]:
    hooks, bridge, own = ("output", "postrouting"), network.bridge, network.ipv6_own[0]
    match = f'oifname "{bridge}" ip6 daddr {_set([*network.ipv6_prefixes, LINK_LOCAL, "ff02::/16"])}'
    for guest in _guests(network):
        yield Packet(NO_GUEST, hooks, match, "", bridge, own, guest, "tcp", (CLIENT, 22), six=True)
    yield Packet(NO_DHCP, hooks, match, "", bridge, _FE80, _FE80, "udp", (547, 546), six=True)
    yield _icmp(NO_DHCP, hooks, match, "", bridge, _FE80, _NODES, "nd-router-advert")
    yield _icmp(NO_GUEST, hooks, match, "", bridge, own, _SOLICITED, "nd-neighbor-solicit")
    yield _icmp(NO_GUEST, hooks, match, "", bridge, own, next(iter(_guests(network))), "nd-neighbor-advert")


def _internet(network: Network, uplink: str) -> Iterable[Packet]:
    bridge, all_hooks = network.bridge, ("prerouting", "forward", "postrouting")
    for prefix, guest in zip(network.ipv6_prefixes, _guests(network)):
        match, ports = f'iifname "{bridge}" ip6 saddr {prefix}', (CLIENT, 443)
        yield Packet(NO_INTERNET, all_hooks, match, bridge, uplink, guest, _ANYWHERE, "tcp", ports, six=True)
        yield _answer(network, prefix, guest, uplink, "")


def _answer(network: Network, prefix: object, guest: IPv6Address, device: str, back: str) -> Packet:
    hooks, bridge, ports = ("forward", "postrouting"), network.bridge, (443, CLIENT)
    match = f'{back} oifname "{bridge}" ip6 daddr {prefix} {REPLY}'.lstrip()
    return Packet(
        NO_INTERNET, hooks, match, device, bridge, _ANYWHERE, guest, "tcp", ports, "established", six=True
    )


def _by_way(network: Network, device: str, there: str) -> Iterable[Packet]:
    """``device`` and ``there`` as in devices()."""
    hooks, bridge = ("forward", "postrouting"), network.bridge
    to, back = directions(there)
    for prefix, guest in zip(network.ipv6_prefixes, _guests(network)):
        match, ports = f'iifname "{bridge}" {to} ip6 saddr {prefix}', (CLIENT, 443)
        yield Packet(NO_INTERNET, hooks, match, bridge, device, guest, _ANYWHERE, "tcp", ports, six=True)
        yield _answer(network, prefix, guest, device, back)


def _among_guests(network: Network) -> Iterable[Packet]:
    """Neighbour discovery from ``::`` among it; table bridge loopnet knows who may send as what."""
    bridge, (guest, *_) = network.bridge, _guests(network)
    for hook, out in (("prerouting", ""), ("forward", f' oifname "{bridge}"')):
        match = f'iifname "{bridge}"{out} ip6 saddr {_set([*network.ipv6_prefixes, LINK_LOCAL, "::"])}'
        there = guest + 1
        yield Packet(NOT_AMONG, (hook,), match, bridge, bridge, guest, there, "tcp", (CLIENT, 22), six=True)
        yield _icmp(NOT_AMONG, (hook,), match, bridge, bridge, guest, _SOLICITED, "nd-neighbor-solicit")


def _inwards(network: Network, uplink: str, published: bool) -> Iterable[Packet]:
    """To published ports, and all that comes to a prefix that libvirt routed."""
    hooks, bridge = ("forward", "postrouting"), network.bridge
    for prefix, guest in zip(network.ipv6_prefixes, _guests(network)):
        match, ports = f'oifname "{bridge}" ip6 daddr {prefix}', (CLIENT, 80)
        sides = (uplink, bridge, _ANYWHERE, guest, "tcp", ports)
        if network.ipv6_forward == ROUTE:
            yield Packet("the LAN doesn't reach guests", hooks, match, *sides, six=True)
        elif published:
            yield Packet(NO_LAN, hooks, f"{match} ct status dnat", *sides, status="dnat", six=True)
