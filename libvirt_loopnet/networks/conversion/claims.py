"""NICs on a network that changes, asked of libvirt, what addresses they use, and so which number each is to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from ...daemon.connection import DomainInfo
from ...guests.interfaces import Interface, interfaces, is_of
from ...model import Reservation


class Nic(NamedTuple):
    """A NIC of a domain on the network, live or only defined."""

    guest: str
    uuid: str
    live: bool
    interface: Interface


def nics_on(domains: Iterable[DomainInfo], network: str, spare: str) -> list[Nic]:
    """The NICs on ``network``: of running guests as they run, of others as they are defined."""
    return [
        Nic(domain.name, domain.uuid, bool(domain.live_xml), interface)
        for domain in domains
        for interface in interfaces(domain.live_xml or domain.xml)
        if is_of(interface, network, spare)
    ]


Seen = Iterable[tuple[str, IPv4Address]]
"""(MAC, address), MAC in lower case."""


def used_addresses(leases: Seen, seen: Seen) -> dict[str, IPv4Address]:
    """One address for each MAC address: its lease, unless it was ``seen`` with others only."""
    leased, used = _grouped(leases), _grouped(seen)
    chosen = {}
    for mac in sorted({*leased, *used}):
        both = [address for address in leased.get(mac, []) if address in used.get(mac, [])]
        chosen[mac] = (both or used.get(mac) or leased[mac])[0]
    return chosen


def _grouped(pairs: Seen) -> dict[str, list[IPv4Address]]:
    grouped: dict[str, list[IPv4Address]] = {}
    for mac, address in pairs:
        grouped.setdefault(mac, []).append(address)
    return grouped


class Claim(NamedTuple):
    """A host number for a NIC to keep."""

    mac: str
    uuid: str
    guest: str
    """Name of the domain, else what the definition calls it."""
    number: int
    in_use: bool
    """The NIC has this number now, by lease or by hand; else the definition says so."""


def claims(declared: Iterable[Reservation], used: Mapping[str, int], known: Sequence[Nic]) -> list[Claim]:
    """Who is to keep what: as the definition declares, then as known NICs have it.

    A declared name without a MAC address is that of a domain with a single NIC on the network.
    """
    by_mac = {nic.interface.mac: nic for nic in known}
    found: dict[str, Claim] = {}
    for host in declared:
        nic = by_mac.get(host.mac) if host.mac else _by_name(host.name, known)
        mac = host.mac or (nic.interface.mac if nic else "")
        if mac:
            uuid, guest = (nic.uuid, nic.guest) if nic else ("", host.name)
            found[mac] = Claim(mac, uuid, guest, host.number, used.get(mac) == host.number)
    for mac, number in used.items():
        if mac in by_mac and mac not in found:
            nic = by_mac[mac]
            found[mac] = Claim(mac, nic.uuid, nic.guest, number, True)
    return list(found.values())


def _by_name(name: str, known: Sequence[Nic]) -> Nic | None:
    found = [nic for nic in known if nic.guest == name]
    return found[0] if len(found) == 1 else None
