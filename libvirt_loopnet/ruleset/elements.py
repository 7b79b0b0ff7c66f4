"""Guests come and go as elements of sets and maps: all that a guest's hooks change, and import."""

from __future__ import annotations

from collections.abc import Iterable

from ..model import Binding, Guest, Network
from .phrases import chain


def add_elements(networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]) -> str:
    """nft commands that admit ``guests`` and tie them to their taps; adding twice is no error."""
    return "".join(f"add element {line}\n" for line in _elements(networks, guests, bindings))


def delete_elements(networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]) -> str:
    """nft commands that take the same elements away; right also when they aren't there."""
    lines = list(_elements(networks, guests, bindings))
    return "".join(f"add element {line}\ndelete element {line}\n" for line in lines)


def _elements(
    networks: Iterable[Network], guests: Iterable[Guest], bindings: Iterable[Binding]
) -> Iterable[str]:
    """``FAMILY TABLE SET { ELEMENT }``, grouped by set so that a thousand guests are a handful of lines."""
    by_name = {network.name: network for network in networks}
    grouped: dict[str, list[str]] = {}

    def put(where: str, element: str) -> None:
        grouped.setdefault(where, []).append(element)

    macs: set[str] = set()
    for guest in guests:
        network = by_name[guest.network]
        address = network.guest_address(guest.number)
        senders, arp_senders = (
            f"bridge loopnet {chain(kind, network)}" for kind in ("senders", "arp-senders")
        )
        put(senders, f"{guest.mac} . {address}")
        put(arp_senders, f"{guest.mac} . {guest.mac} . {address}")
        put(arp_senders, f"{guest.mac} . {guest.mac} . 0.0.0.0")
        loop = network.loop_address(guest.number)
        put("arp loopnet neighbours", f'"{network.bridge}" . {guest.mac} . {loop}')
        # One MAC may be on two networks (clones); unbound it can be told to one of them only.
        if guest.mac not in macs:
            macs.add(guest.mac)
            put("bridge loopnet unbound", f"{guest.mac} : goto {chain('from', network)}")
            put("bridge loopnet macs", guest.mac)
            put("ip loopnet nics", guest.mac)
    for binding in bindings:
        network = by_name[binding.network]
        nic = f'"{binding.tap}" . {binding.mac}'
        address = network.guest_address(binding.number)
        put("bridge loopnet bound-senders", f"{nic} . {address} : goto {chain('ip-from', network)}")
        put("bridge loopnet bound", f"{nic} : goto {chain('from', network)}")
        put("bridge loopnet taps", f'"{binding.tap}"')
        put("bridge loopnet bound-macs", binding.mac)
    for where, elements in grouped.items():
        yield f"{where} {{ {', '.join(elements)} }}"
