"""What a NIC may send as: what is reserved for it, or for its domain's other NICs on the network. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..model import Binding, Guest, Reservation

Siblings = Mapping[str, Sequence[Reservation]]
"""By MAC address: the reservations of the other NICs of its domain on the network; those without any are left out."""


def siblings(reservations: Iterable[Reservation]) -> Siblings:
    """Who belongs together, among a network's reservations, whether they are live or not."""
    domains: dict[str, list[Reservation]] = {}
    for each in reservations:
        if each.uuid:
            domains.setdefault(each.uuid, []).append(each)
    return {
        each.mac: [other for other in nics if other.mac != each.mac]
        for nics in domains.values()
        if len(nics) > 1
        for each in nics
    }


def guest(network_name: str, kept: Reservation, others: Siblings) -> Guest:
    """The live NIC that has this reservation."""
    numbers = {number for each in (kept, *others.get(kept.mac, ())) for number in each.numbers}
    return Guest(network_name, kept.mac, kept.number, kept.name, tuple(sorted(numbers - {kept.number})))


def binding(network_name: str, tap: str, mac: str, number: int, others: Siblings) -> Binding:
    """The live NIC's tap."""
    also = tuple(sorted(other.mac for other in others.get(mac, ())))
    return Binding(network_name, tap, mac, number, also)
