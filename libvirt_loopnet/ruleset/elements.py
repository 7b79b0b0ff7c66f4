"""Guests come and go as elements of sets and maps: all that a guest's hooks change, and import."""

from __future__ import annotations

from collections.abc import Iterable

from ..ipv6 import link_local
from ..model import Binding, Guest, Network
from .phrases import chain, host_numbers, is_free


def add_elements(
    networks: Iterable[Network],
    guests: Iterable[Guest],
    bindings: Iterable[Binding],
    reserved: Iterable[tuple[str, int]] = (),
) -> str:
    """nft commands that admit ``guests``, tie them to their taps, and keep what is ``reserved`` (names of
    networks, host numbers) from all others; adding twice is no error."""
    return "".join(f"add element {line}\n" for line in _elements(networks, guests, bindings, reserved))


def delete_elements(
    networks: Iterable[Network],
    guests: Iterable[Guest],
    bindings: Iterable[Binding],
    reserved: Iterable[tuple[str, int]] = (),
) -> str:
    """nft commands that take the same elements away; right also when they aren't there."""
    lines = list(_elements(networks, guests, bindings, reserved))
    return "".join(f"add element {line}\ndelete element {line}\n" for line in lines)


def _elements(
    networks: Iterable[Network],
    guests: Iterable[Guest],
    bindings: Iterable[Binding],
    reserved: Iterable[tuple[str, int]] = (),
) -> Iterable[str]:
    """``FAMILY TABLE SET { ELEMENT }``, grouped by set so that a thousand guests are a handful of lines."""
    by_name = {network.name: network for network in networks}
    grouped: dict[str, list[str]] = {}

    def put(where: str, element: str) -> None:
        grouped.setdefault(where, []).append(element)

    macs: set[str] = set()
    for guest in guests:
        network = by_name[guest.network]
        nic = f'"{network.bridge}" . {guest.mac}'
        for number in (guest.number, *guest.also):
            if number not in network.guest_numbers or number in host_numbers(network):
                continue  # the network was changed since that was reserved
            put(
                f"bridge loopnet {chain('senders', network)}",
                f"{guest.mac} . {network.guest_address(number)}",
            )
            put("arp loopnet neighbours", f"{nic} . {network.loop_address(number)}")
        put(f"bridge loopnet {chain('arp-senders', network)}", f"{guest.mac} . {guest.mac}")
        put("arp loopnet nics", nic)
        if network.ipv6_prefixes:
            put("ip6 loopnet nics", guest.mac)
            own = str(link_local(guest.mac))
            addresses = [network.ipv6_address(number) for number in (guest.number, *guest.also)]
            for each in (own, *(str(address) for address in addresses if address)):
                put(f"bridge loopnet {chain('senders6', network)}", f"{guest.mac} . {each}")
            put(f"bridge loopnet {chain('reserved6', network)}", own)
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
        for mac in (binding.mac, *binding.also):
            put("bridge loopnet bound", f'"{binding.tap}" . {mac} : goto {chain("from", network)}')
        put("bridge loopnet taps", f'"{binding.tap}"')
        put("bridge loopnet bound-macs", binding.mac)
    for name, number in reserved:
        network = by_name[name]
        if network.ipv6 and number not in host_numbers(network):
            put(f"bridge loopnet {chain('reserved6', network)}", str(network.ipv6_address(number)))
        if is_free(network) and number not in host_numbers(network):
            put(f"bridge loopnet {chain('reserved', network)}", str(network.guest_address(number)))
            put("arp loopnet reserved_addresses", str(network.loop_address(number)))
    for where, elements in grouped.items():
        yield f"{where} {{ {', '.join(elements)} }}"
