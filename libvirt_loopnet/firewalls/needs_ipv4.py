"""What must pass in IPv4 for our networks, as sample packets. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from ..model import NATIVE, NONE, Network
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
from .walk import Packet
from .ways import EVERYWHERE, Ways

_ANYWHERE = IPv4Address("9.9.9.9")
_NOBODY, _EVERYBODY = IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255")


def packets(
    networks: Iterable[Network],
    uplink: str,
    bridged: bool,
    published: Collection[str] = (),
    ways: Ways = EVERYWHERE,
) -> list[Packet]:
    """What must pass for ``networks``; ``uplink`` is the device of the default route, '' for none.

    ``bridged``: br_netfilter shows rules for IP what goes from guest to guest. ``published`` names the
    networks that have published ports: where the host's own traffic may leave by some ``ways`` only, the LAN
    gets no answers from guests.
    """
    found: list[Packet] = []
    for network in networks:
        found += [*_to_host(network), *_from_host(network)]
        if network.internet != NONE:
            found += _internet(network, uplink) if not ways.limited else _by_ways(network, uplink, ways)
        found += _among_guests(network) if bridged else ()
        if uplink and network.name in published and not ways.limited:
            found.append(_from_lan(network, uplink))
    return found


def outs(networks: Iterable[Network], uplink: str) -> list[Packet]:
    """What guests send to the internet by ``uplink``."""
    return [next(iter(_by_way(network, uplink, ""))) for network in networks if network.internet != NONE]


def _to_host(network: Network) -> Iterable[Packet]:
    hooks, bridge, transit = ("prerouting", "input"), network.bridge, network.transit_prefix
    guest, own = network.transit_address(guest_of(network)), network.own_transit[-1]
    dhcp, by_guest = f'iifname "{bridge}" udp dport 67', f'iifname "{bridge}" ip saddr {transit}'
    by_guest += f" ip daddr {{ {', '.join(map(str, network.own_transit))} }}"
    dns = f"{by_guest} meta l4proto {{ tcp, udp }} th dport 53"
    yield Packet(NO_DHCP, hooks, dhcp, bridge, "", _NOBODY, _EVERYBODY, "udp", (68, 67))
    yield Packet(NO_DNS, hooks, dns, bridge, "", guest, own, "udp", (CLIENT, 53))
    yield Packet(NO_PING, hooks, f"{by_guest} meta l4proto icmp", bridge, "", guest, own, "icmp", (0, 0))
    loop_guest, loop_host = network.loop_address(guest_of(network)), network.loop_address(network.host)
    renewing, server = (loop_guest, loop_host) if network.mode == NATIVE else (guest, own)
    yield Packet(NO_DHCP, hooks, dhcp, bridge, "", renewing, server, "udp", (68, 67))
    # No ct state: in a chain ahead of conntrack it isn't known yet, and table ip loopnet looks at it.
    reply = f'iifname "{bridge}" ip saddr {network.loop_prefix}'
    ports = (22, CLIENT)
    yield Packet(NO_GUEST, hooks, reply, bridge, "", loop_guest, loop_host, "tcp", ports, "established")


def _from_host(network: Network) -> Iterable[Packet]:
    hooks, bridge = ("output", "postrouting"), network.bridge
    guest, own = network.loop_address(guest_of(network)), network.loop_address(network.host)
    match = f'oifname "{bridge}" ip daddr {{ {network.loop_prefix}, {network.transit_prefix} }}'
    yield Packet(NO_GUEST, hooks, match, "", bridge, own, guest, "tcp", (CLIENT, 22))
    gateway, match = network.guest_address(network.gateway), f'oifname "{bridge}" udp sport 67'
    yield Packet(NO_DHCP, hooks, match, "", bridge, gateway, _EVERYBODY, "udp", (67, 68))


def _internet(network: Network, uplink: str) -> Iterable[Packet]:
    if not uplink:
        return
    bridge, transit = network.bridge, network.transit_prefix
    guest, all_hooks = network.transit_address(guest_of(network)), ("prerouting", "forward", "postrouting")
    match, ports = f'iifname "{bridge}" ip saddr {transit}', (CLIENT, 443)
    yield Packet(NO_INTERNET, all_hooks, match, bridge, uplink, guest, _ANYWHERE, "tcp", ports)
    # In prerouting it is still on its way to the host, whose address the guest had borrowed.
    hooks, match, ports = all_hooks[1:], f'oifname "{bridge}" ip daddr {transit} {REPLY}', (443, CLIENT)
    yield Packet(NO_INTERNET, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, "established")


def _by_ways(network: Network, uplink: str, ways: Ways) -> Iterable[Packet]:
    """Out, and answers back, only where the host's own traffic goes: told in hooks that know the device."""
    for device, there in devices(uplink, ways):
        yield from _by_way(network, device, there)


def _by_way(network: Network, device: str, there: str) -> Iterable[Packet]:
    """``there`` as in devices()."""
    hooks, bridge, transit = ("forward", "postrouting"), network.bridge, network.transit_prefix
    to, back = directions(there)
    guest = network.transit_address(guest_of(network))
    match, ports = f'iifname "{bridge}" {to} ip saddr {transit}', (CLIENT, 443)
    yield Packet(NO_INTERNET, hooks, match, bridge, device, guest, _ANYWHERE, "tcp", ports)
    match, ports = f'{back} oifname "{bridge}" ip daddr {transit} {REPLY}', (443, CLIENT)
    yield Packet(NO_INTERNET, hooks, match, device, bridge, _ANYWHERE, guest, "tcp", ports, "established")


def _among_guests(network: Network) -> Iterable[Packet]:
    bridge, guest = network.bridge, guest_of(network)
    here, there = network.guest_address(guest), network.guest_address(guest + 1)
    for hook, out in (("prerouting", ""), ("forward", f' oifname "{bridge}"')):
        match = f'iifname "{bridge}"{out} ip saddr {network.guest_prefix}'
        yield Packet(NOT_AMONG, (hook,), match, bridge, bridge, here, there, "tcp", (CLIENT, 22))


def _from_lan(network: Network, uplink: str) -> Packet:
    hooks, bridge, guest = (
        ("forward", "postrouting"),
        network.bridge,
        network.transit_address(guest_of(network)),
    )
    match, ports = f'oifname "{bridge}" ip daddr {network.transit_prefix} ct status dnat', (CLIENT, 80)
    return Packet(NO_LAN, hooks, match, uplink, bridge, _ANYWHERE, guest, "tcp", ports, status="dnat")
