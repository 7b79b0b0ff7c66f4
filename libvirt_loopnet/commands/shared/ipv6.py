"""Where guests are in IPv6: an address is theirs by number only once they have asked for it.

A guest that makes addresses by itself (SLAAC) is where the host's neighbour table has seen it. Table bridge loopnet
lets nobody say that he is another, so what stands there for a NIC's MAC address is that NIC's.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address

from ...host.kernel.neighbours import neighbours6
from ...host.leases import ipv6_leases
from ...ipv6 import link_local
from .inventory import UP, Entry


def whereabouts(listed: Sequence[Entry]) -> list[list[IPv6Address]]:
    """Addresses in IPv6 of each of these: the one that it has leased, or while it is up those that it was seen at, in
    its network's prefixes; of these the one made of its MAC address first, which it keeps."""
    networks = {entry.network for entry in listed if entry.network and entry.network.ipv6_prefixes}
    leased = ipv6_leases(networks)
    lacking = {
        e.network for e in listed if e.network in networks and e.state == UP and not _leased(e, leased)
    }
    seen = {network.name: neighbours6(network.bridge) for network in lacking if network}
    return [_leased(entry, leased) or _of(entry, seen.get(entry.network_name, [])) for entry in listed]


def has_leased(entry: Entry) -> bool:
    """Its address by number, which published ports lead to."""
    return bool(entry.network and _leased(entry, ipv6_leases([entry.network])))


def _leased(entry: Entry, leased: frozenset[IPv6Address]) -> list[IPv6Address]:
    address = entry.ipv6_address
    return [address] if address and address in leased else []


def _of(entry: Entry, seen: Sequence[tuple[str, IPv6Address]]) -> list[IPv6Address]:
    if entry.state != UP or not entry.network:
        return []
    mac, prefixes = entry.reservation.mac, entry.network.ipv6_prefixes
    found = [address for owner, address in seen if owner == mac and any(address in each for each in prefixes)]
    made = link_local(mac).packed[8:]
    return sorted(found, key=lambda address: address.packed[8:] != made)
