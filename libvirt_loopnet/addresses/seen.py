"""Which addresses NICs use beside those that are reserved for them, by what was seen of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from ..model import FREE, Network, Reservation
from ..records import NamedTuple
from .senders import guest, siblings


class Seen(NamedTuple):
    """Of one NIC."""

    used: tuple[IPv4Address, ...] = ()
    """Loop addresses that nobody has reserved: they work."""
    dropped: tuple[IPv4Address, ...] = ()
    """What it sends from in vain, as it calls that itself."""


def judge(
    network: Network,
    kept: Sequence[Reservation],
    neighbours: Iterable[tuple[str, IPv4Address]],
    heard: Iterable[tuple[str, IPv4Address]],
) -> dict[str, Seen]:
    """By MAC address. ``neighbours`` the host has spoken with, and its rules let them in; ``heard`` are all others
    whose sender was not theirs, whether or not they were let in."""
    others = siblings(kept)
    own = {each.mac: {each.number, *guest(network.name, each, others).also} for each in kept}
    taken = {number for each in kept for number in each.numbers}
    taken.update((network.gateway, network.host))
    used: dict[str, set[IPv4Address]] = {}
    dropped: dict[str, set[IPv4Address]] = {}

    def is_free(number: int | None) -> bool:
        return number in network.guest_numbers and number not in taken

    for mac, address in neighbours:
        number = network.number(address)
        if address in network.loop_prefix and is_free(number):
            used.setdefault(mac, set()).add(address)
    for mac, address in heard:
        number = network.number(address) if address in network.guest_prefix else None
        if mac not in own or number in own[mac] or int(address) == 0:  # 0.0.0.0 is who has none yet
            continue
        if number is not None and network.addresses == FREE and is_free(number):
            used.setdefault(mac, set()).add(network.loop_address(number))
        else:
            dropped.setdefault(mac, set()).add(address)
    return {
        mac: Seen(tuple(sorted(used.get(mac, ()))), tuple(sorted(dropped.get(mac, ()))))
        for mac in {*used, *dropped}
    }
