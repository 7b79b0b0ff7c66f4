"""Which host number a NIC gets, and which name, and which NICs and numbers are refused: pure functions on a network's
reservations.

Every function is linear in the number of reservations; a /12 has 2^20 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

from ..errors import ConflictError, InputError, PoolFullError
from ..model import Network, Reservation
from ..records import NamedTuple
from ..validation import check_mac
from .labels import MAX_LENGTH, dns_label, with_suffix


class Nic(NamedTuple):
    """Who is to have an address."""

    mac: str
    uuid: str = ""
    """UUID and name of its domain, '' where a reservation does not know them, or knows them already."""
    name: str = ""


def allocate(network: Network, reservations: Sequence[Reservation], seen: Container[int] = ()) -> int:
    """The lowest host number that is neither reserved nor the gateway's or the host's.

    One that was ``seen`` in use comes after all others: a guest that uses them all freely must not
    keep others from starting. Raises PoolFullError when there is none.
    """
    used = {number for reservation in reservations for number in reservation.numbers}
    used.update((network.gateway, network.host))
    last = 0
    for number in network.guest_numbers:
        if number not in used:
            if number not in seen:
                return number
            last = last or number
    if last:
        return last
    raise _full(network)


def reserve(
    network: Network,
    reservations: Sequence[Reservation],
    mac: str,
    uuid: str,
    guest_name: str,
    number: int | None = None,
    seen: Callable[[], Container[int]] = tuple,
) -> tuple[list[Reservation], Reservation]:
    """Keep a host number for the NIC ``mac``; returns all reservations, by number, and the NIC's.

    The MAC address is the key: a NIC known already keeps its number, while ``uuid`` and
    ``guest_name`` (the domain's, '' when reserved by hand for a MAC address alone) follow its
    newest owner. ``number`` asks for one host number, else the lowest free one is taken. A kept
    number that the network no longer has for guests (its prefix or gateway was changed) is
    replaced, a further one dropped. ``seen`` tells which are in use by others though nobody has
    reserved them; it is asked only when a number has to be found.

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
    chosen = _number(network, reservations, old, mac, number, seen)
    owner = uuid.lower() or (old.uuid if old else "")
    kept_name = old.name if old else ""
    name = _name(others, guest_name, uuid.lower(), chosen) if guest_name else kept_name
    published, also, shared = old[4:] if old else ((), (), ())
    also, shared = (tuple(n for n in each if _for_guests(network, n)) for each in (also, shared))
    reservation = Reservation(chosen, mac, owner, name, published, also, shared)
    return sorted([*others, reservation]), reservation


def extend(
    network: Network,
    reservations: Sequence[Reservation],
    nics: Iterable[Nic],
    number: int,
    *,
    shared: bool,
    seen: Callable[[], Iterable[int]] = tuple,
) -> list[Reservation]:
    """Keep ``number`` for ``nics`` beside what each has: for one alone, or ``shared`` by all that have it so.

    A NIC without a reservation gets one; for ``seen`` see reserve(). To have it already in the same way is no
    error. Raises what reserve() raises, and ConflictError where it is kept in another way.
    """
    after = list(reservations)
    for nic in nics:
        after, kept = reserve(network, after, *nic, seen=lambda: {number, *seen()})
        others = [each._replace(shared=()) if shared else each for each in after]
        if number in (kept.shared if shared else kept.also):
            continue
        _check_wanted(network, others, number)
        if shared:
            wider = kept._replace(shared=tuple(sorted((*kept.shared, number))))
        else:
            wider = kept._replace(also=tuple(sorted((*kept.also, number))))
        after = sorted([*(each for each in after if each != kept), wider])
    return after


def reduce(
    reservations: Iterable[Reservation], macs: Container[str], number: int, *, shared: bool
) -> list[Reservation]:
    """Give ``number``, which is kept beside others, back for the NICs ``macs``."""

    def without(numbers: Iterable[int]) -> tuple[int, ...]:
        return tuple(each for each in numbers if each != number)

    def narrower(kept: Reservation) -> Reservation:
        if kept.mac not in macs:
            return kept
        return (
            kept._replace(shared=without(kept.shared)) if shared else kept._replace(also=without(kept.also))
        )

    return [narrower(kept) for kept in reservations]


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
    # 0 is nobody's: what they move from is free for the others, and all else that is theirs is not.
    after = [each._replace(number=0) if each.mac in macs else each for each in reservations]
    errors: list[str] = []
    for host in moving:
        known = old.get(host.mac, host)
        try:
            after, _ = reserve(network, after, host.mac, known.uuid, known.name, host.number)
        except InputError as error:
            errors.append(str(error))
            if host.mac in old:
                numbers = {each for kept in after for each in kept.numbers}
                number = None if known.number in numbers else known.number
                after, _ = reserve(network, after, host.mac, known.uuid, known.name, number)
    return after, errors


def _check_nic(network: Network, mac: str) -> str:
    mac = check_mac(f"network {network.name}", mac)
    if int(mac[:2], 16) & 1:
        raise InputError(f"{mac} is a multicast address; give the MAC address of a NIC")
    return mac


def _number(
    network: Network,
    reservations: Sequence[Reservation],
    old: Reservation | None,
    mac: str,
    wanted: int | None,
    seen: Callable[[], Container[int]],
) -> int:
    # what it has beside it can't be its first
    others = [each._replace(number=0) if each.mac == mac else each for each in reservations]
    if wanted is not None:
        _check_wanted(network, others, wanted)
        return wanted
    if old and _for_guests(network, old.number):
        return old.number
    return allocate(network, others, seen())


def _check_wanted(network: Network, reservations: Sequence[Reservation], number: int) -> None:
    """May it be reserved, for one that has none of its numbers here?"""
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
    holders = [each for each in reservations if number in each.numbers]
    if not holders:
        return
    names = [each.name or each.mac for each in holders]
    if number in holders[0].shared:
        what, how = f"shared by {', '.join(names)}", f"--shared {address}"
    elif number in holders[0].also:
        what, how = f"reserved for {names[0]}, beside its first", f"{names[0]} --also {address}"
    else:
        what, how = f"reserved for {names[0]}", names[0]
    raise ConflictError(f"network {network.name}: {address} is {what}; free it with: loopnet release {how}")


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
