"""Which host number a NIC gets, and which name: pure functions on a network's reservations.

Every function is linear in the number of reservations; a /12 has 2^20 of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from ..errors import ConflictError, InputError, PoolFullError
from ..model import Network, Reservation
from ..validation import check_mac
from .labels import MAX_LENGTH, dns_label, with_suffix


def allocate(network: Network, reservations: Sequence[Reservation]) -> int:
    """The lowest host number that is neither reserved nor the gateway's or the host's.

    Raises PoolFullError when there is none.
    """
    used = {reservation.number for reservation in reservations}
    used.update((network.gateway, network.host))
    for number in network.guest_numbers:
        if number not in used:
            return number
    raise _full(network)


def reserve(
    network: Network,
    reservations: Sequence[Reservation],
    mac: str,
    uuid: str,
    guest_name: str,
    number: int | None = None,
) -> tuple[list[Reservation], Reservation]:
    """Keep a host number for the NIC ``mac``; returns all reservations, by number, and the NIC's.

    The MAC address is the key: a NIC known already keeps its number, while ``uuid`` and
    ``guest_name`` (the domain's, '' when reserved by hand for a MAC address alone) follow its
    newest owner. ``number`` asks for one host number, else the lowest free one is taken. A kept
    number that the network no longer has for guests (its prefix or gateway was changed) is
    replaced.

    The first NIC of a domain has the plain DNS label of the domain's name; further ones, and
    other domains with the same label, have LABEL-NUMBER. A domain whose name is exactly its label
    takes it from another domain: libvirt's names are unique, so the other is gone or renamed
    (a guest deleted and made again) or only looks alike ("VM 1" beside "vm-1").

    Raises PoolFullError; InputError for a malformed MAC address or a number that guests can't
    have; ConflictError when ``number`` is another NIC's.
    """
    mac = _check_nic(network, mac)
    old = next((each for each in reservations if each.mac == mac), None)
    others = [each for each in reservations if each.mac != mac]
    chosen = _number(network, others, old, number)
    owner = uuid.lower() or (old.uuid if old else "")
    kept_name = old.name if old else ""
    name = _name(others, guest_name, uuid.lower(), chosen) if guest_name else kept_name
    reservation = Reservation(chosen, mac, owner, name, old.published if old else ())
    return sorted([*others, reservation]), reservation


def declare(
    network: Network, reservations: Sequence[Reservation], hosts: Iterable[Reservation], live: Container[str]
) -> tuple[list[Reservation], list[str]]:
    """All reservations, with those for ``hosts``, by MAC address, as these ask for; errors, one line each.

    NICs that are ``live`` keep what they have, and so do those whose number is another's. The rest may
    exchange numbers. A new NIC gets the name its host has.
    """
    old = {each.mac: each for each in reservations}
    moving = [host for host in hosts if host.mac not in live]
    moving = [host for host in moving if host.mac not in old or old[host.mac].number != host.number]
    moving.sort(key=lambda host: host.mac not in old)  # names that are kept go before new ones
    macs = {host.mac for host in moving}
    after, errors = [each for each in reservations if each.mac not in macs], []
    for host in moving:
        known = old.get(host.mac, host)
        try:
            after, _ = reserve(network, after, host.mac, known.uuid, known.name, host.number)
        except InputError as error:
            errors.append(str(error))
            if host.mac in old:
                numbers = {each.number for each in after}
                number = None if known.number in numbers else known.number
                after, _ = reserve(network, after, host.mac, known.uuid, known.name, number)
    return after, errors


def _check_nic(network: Network, mac: str) -> str:
    mac = check_mac(f"network {network.name}", mac)
    if int(mac[:2], 16) & 1:
        raise InputError(f"{mac} is a multicast address; give the MAC address of a NIC")
    return mac


def _number(
    network: Network, others: Sequence[Reservation], old: Reservation | None, wanted: int | None
) -> int:
    if wanted is not None:
        _check_wanted(network, others, wanted)
        return wanted
    if old and _for_guests(network, old.number):
        return old.number
    return allocate(network, others)


def _check_wanted(network: Network, others: Sequence[Reservation], number: int) -> None:
    if number not in network.guest_numbers:
        raise InputError(
            f"network {network.name}: host number {number} is not in {network.loop_prefix}; "
            f"give an address from {network.loop_address(1)} "
            f"to {network.loop_address(network.guest_numbers[-1])}"
        )
    address = network.loop_address(number)
    for reserved, owner in ((network.gateway, "gateway"), (network.host, "host")):
        if number == reserved:
            raise InputError(f"network {network.name}: {address} is the {owner}'s; give another address")
    holder = _holder(others, number)
    if holder:
        raise ConflictError(
            f"network {network.name}: {address} is reserved for {holder.name or holder.mac}; "
            f"free it with: loopnet release {holder.name or holder.mac}"
        )


def _holder(others: Sequence[Reservation], number: int) -> Reservation | None:
    return next((each for each in others if each.number == number), None)


def _for_guests(network: Network, number: int) -> bool:
    return number in network.guest_numbers and number not in (network.gateway, network.host)


def _name(others: list[Reservation], guest_name: str, uuid: str, number: int) -> str:
    """The name for a NIC; renames in ``others`` the one that has to give its name up."""
    label = dns_label(guest_name)
    if not label:
        return ""
    names = {each.name: index for index, each in enumerate(others)}
    if label not in names:
        return label
    holder = others[names[label]]
    if not uuid or label != guest_name or holder.uuid == uuid:
        return _numbered(label, number, names)
    others[names[label]] = holder._replace(name=_numbered(label, holder.number, names))
    return label


def _numbered(label: str, number: int, taken: Container[str]) -> str:
    """LABEL-NUMBER; the number once more should a domain be called just that."""
    suffix = ""
    while len(suffix) < MAX_LENGTH - 10:
        suffix += f"-{number}"
        name = with_suffix(label, suffix)
        if name not in taken:
            return name
    return ""


def _full(network: Network) -> PoolFullError:
    count = sum(1 for number in network.guest_numbers if _for_guests(network, number))
    return PoolFullError(
        f"network {network.name}: all {count} addresses of {network.loop_prefix} are reserved; "
        "free one with: loopnet release GUEST"
    )
