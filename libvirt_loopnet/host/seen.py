"""Who was seen to use which address on a network: by the host's neighbour table and by our rules."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from ..errors import HostError
from ..model import FREE, Network, Reservation
from ..ruleset.phrases import chain
from .kernel import sets
from .kernel.neighbours import neighbours


def heard(network: Network) -> list[tuple[str, IPv4Address]]:
    """(MAC, address) of what was sent in the last half hour with an address that is not its sender's
    (ruleset/bridge.py); empty where there are no rules, and for whom may not look."""
    try:
        keys = sets.elements(sets.BRIDGE, "loopnet", chain("seen", network))
    except HostError:
        return []
    # A key has its parts at multiples of 4 bytes.
    return [(key[:6].hex(":"), IPv4Address(key[8:12])) for key in keys if len(key) == 12]


def in_use(network: Network, kept: Iterable[Reservation], but: str = "") -> set[int]:
    """Host numbers that NICs which are let in were seen to use, the NIC ``but`` excepted, though none of ``kept`` has
    them; () where none may use a free one."""
    if network.addresses != FREE:
        return set()
    reserved = {number for each in kept for number in each.numbers}
    seen = {
        (mac, network.number(address) or 0) for mac, address in [*neighbours(network.bridge), *heard(network)]
    }
    free = {(mac, number) for mac, number in seen if mac != but and number not in reserved}
    # Who is gone is remembered for long, by the neighbour table above all.
    here = _let_in() if free else set()
    return {number for mac, number in free if mac in here}


def _let_in() -> set[str]:
    try:
        return {key[:6].hex(":") for key in sets.elements(sets.BRIDGE, "loopnet", "macs")}
    except HostError:
        return set()
