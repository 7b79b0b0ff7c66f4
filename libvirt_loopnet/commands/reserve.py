"""``loopnet reserve``: choose a guest's address, or give it additional ones.

A running guest keeps its address, so choosing another one is refused until you shut it down,
unless it uses that address already.

``--also`` and ``--shared`` reserve an additional address at once: for one guest alone, or for
several that may hold it in turn, as keepalived moves it. The guest must configure it itself: DHCP
and names use only the first address.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from ipaddress import IPv4Address
from shlex import quote

from ..addresses import pool
from ..addresses.behind import is_behind
from ..addresses.labels import alias
from ..addresses.pool import Nic
from ..addresses.store import Store
from ..converge.dhcp_files import publish
from ..converge.enact import enact
from ..daemon import runstate
from ..errors import ConflictError, InputError, NotFoundError
from ..guests.domains import parse_domain
from ..host.kernel.neighbours import neighbours
from ..host.kernel.taps import set_alias
from ..host.seen import in_use
from ..model import FREE, Network, Reservation
from ..networks.dhcp import static_in
from ..validation import check_mac, shown
from .shared.inventory import PLACES, Entry, entries, find, networks_of_files, read_or_nothing
from .shared.privileges import require_root


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "loopnet reserve GUEST|MAC ADDRESS\n"
        "       loopnet reserve GUEST|MAC --also ADDRESS\n"
        "       loopnet reserve --shared ADDRESS GUEST|MAC...\n"
        "       loopnet reserve --behind GUEST MAC ADDRESS"
    )
    parser.add_argument(
        "guests", nargs="*", metavar="GUEST|MAC", help="the guest's name, or the MAC address of its NIC"
    )
    further = parser.add_mutually_exclusive_group()
    further.add_argument("--also", metavar="ADDRESS", help="an additional address, for this guest alone")
    further.add_argument(
        "--shared", metavar="ADDRESS", help="an additional address that these guests may hold in turn"
    )
    further.add_argument(
        "--behind", metavar="GUEST", default="", help="the MAC address belongs to a NIC inside this guest"
    )


def run(arguments: Namespace) -> int:
    require_root("reserve")
    further = arguments.also if arguments.shared is None else arguments.shared
    if further is not None:
        return _reserve_further(arguments, parse_address(further))
    if len(arguments.guests) != 2:
        raise InputError("give a guest and its address, as vm1 127.1.0.5; see: loopnet reserve --help")
    guest, address = arguments.guests[0], parse_address(arguments.guests[1])
    found = networks_of_files()
    mine = find(entries(found, Store()), guest)
    network, number = place(address, found.known, mine)
    # libvirt is asked before the lock: it may be waiting for a hook that waits for the lock
    if arguments.behind:
        _refuse_own(guest, mine)
        nic = _behind(guest, find(entries(found, Store()), arguments.behind), network, arguments.behind)
    else:
        nic = _nic(guest, network, mine, arguments.connect)
    _refuse_static(network, nic.mac, number)
    own = (e.tap for e in mine if e.reservation.mac == nic.mac and e.reservation.name)
    kept = keep(network, nic, number, next(own, ""))
    print(
        f"{kept.name or kept.mac} has {network.loop_address(number)} in network {network.name}; "
        f"the guest itself sees {network.guest_address(number)}"
    )
    return 0


def _reserve_further(arguments: Namespace, address: IPv4Address) -> int:
    """Beside the first address: --also and --shared."""
    shared, guests = arguments.shared is not None, arguments.guests
    if not guests or (len(guests) > 1 and not shared):
        raise InputError(
            f"{'name those who may hold it' if shared else 'name one guest'}; see: loopnet reserve --help"
        )
    found = networks_of_files()
    listed = entries(found, Store())
    mine = [find(listed, guest) for guest in guests]
    network, number = place(address, found.known, [entry for each in mine for entry in each])
    nics = [_nic(guest, network, each, arguments.connect) for guest, each in zip(guests, mine)]
    store = Store()
    with store.locked():
        before = store.load(network.name)
        after = pool.extend(
            network, before, nics, number, shared=shared, seen=lambda: in_use(network, before)
        )
        store.save(network.name, after)
        publish(store, network.name)  # who had no address has one now
        if sorted(before) != after and runstate.is_active(network.name):
            enact(store)
    macs = {nic.mac for nic in nics}
    for kept in after:
        if kept.mac in macs:
            print(further_line(network, kept, number, after))
    return 0


def further_line(network: Network, kept: Reservation, number: int, everybody: Sequence[Reservation]) -> str:
    """What ``kept`` has of ``number``, and who else."""
    others = [each.name or each.mac for each in everybody if number in each.shared and each != kept]
    how = (
        f", shared with {', '.join(others)}" if others else ", to be shared" if number in kept.shared else ""
    )
    return (
        f"{kept.name or kept.mac} has {network.loop_address(number)} beside {network.loop_address(kept.number)} "
        f"in network {network.name}{how}; set it in the guest: {network.guest_address(number)}"
    )


def keep(network: Network, nic: Nic, number: int, tap: str) -> Reservation:
    """Reserve ``number`` for ``nic``, which is at ``tap`` if it is live, and tell dnsmasq.

    Raises ConflictError while it is live and does not use that number.
    """
    store = Store()
    with store.locked():
        before = store.load(network.name)
        after, kept = pool.reserve(network, before, nic.mac, nic.uuid, nic.name, number)
        if kept not in before:
            _refuse_live(network, before, nic, number)
            store.save(network.name, after)
            if tap:
                set_alias(tap, alias(kept.name, network, kept.number))
            if any(each.published for each in after) or runstate.is_active(network.name):
                enact(store)
        publish(store, network.name)
    return kept


def _refuse_live(network: Network, before: Sequence[Reservation], nic: Nic, number: int) -> None:
    """The guest's own address, the rules that tie it to its NIC and DHCP's answer can't be changed at once."""
    port = next((p for p in runstate.live_ports(network.name) if p.mac == nic.mac), None)
    wanted = network.loop_address(number)
    if port is None or (nic.mac, wanted) in neighbours(network.bridge):
        return
    now = next((network.loop_address(k.number) for k in before if k.mac == nic.mac), "no address")
    raise ConflictError(
        f"guest {shown(port.owner)} is running and has {now} in network {network.name}; shut it "
        f"down first, then try again{_or_use(network, port.owner, wanted)}"
    )


def _or_use(network: Network, owner: str, wanted: IPv4Address) -> str:
    if network.addresses != FREE:
        return f"; or let it have both: loopnet reserve {quote(owner)} --also {wanted}"
    return f"; or set the address in the guest first, and see that it answers: ping -c 1 {wanted}"


def _refuse_static(network: Network, mac: str, number: int) -> None:
    """A ``<host>`` in the network's XML would have its way at the next start."""
    others: dict[str, int] = {}
    for directory, flag in PLACES:
        wanted = static_in(read_or_nothing(f"{directory}/{network.name}.xml"), network).number(mac)
        if wanted is not None and wanted != number:
            others[flag] = wanted
    if others:
        now = network.loop_address(next(iter(others.values())))
        raise ConflictError(
            f"network {network.name} has <host mac='{mac}'> for {now} in its "
            f"definition, which goes first; change it: virsh net-update {network.name} modify "
            f"ip-dhcp-host \"<host mac='{mac}' ip='{network.loop_address(number)}'/>\" {' '.join(others)}"
        )


def parse_address(text: str) -> IPv4Address:
    """Raises InputError."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise InputError(f"{shown(text)} is not an IPv4 address; for example, give 127.1.0.5") from None


def place(address: IPv4Address, known: Sequence[Network], mine: Sequence[Entry]) -> tuple[Network, int]:
    """The network that ``address`` is in, and the host number it has there.

    Guest prefixes may be shared: then it is the network where the guest has a NIC already.
    """
    inside = [network for network in known if address in network.loop_prefix]
    inside = inside or [network for network in known if address in network.guest_prefix]
    if len(inside) > 1:
        at_home = {entry.network_name for entry in mine}
        inside = [network for network in inside if network.name in at_home] or inside
    if len(inside) == 1:
        return inside[0], _number(inside[0], address)
    if not inside:
        raise InputError(f"{address} is in no loopnet network; see: loopnet status")
    loops = " or ".join(str(n.loop_address(_number(n, address))) for n in inside)
    names = ", ".join(network.name for network in inside)
    raise InputError(f"{address} is in networks {names}; say which by the loop address: {loops}")


def _number(network: Network, address: IPv4Address) -> int:
    number = network.number(address)
    if number is None:
        raise InputError(f"{address} is not in network {network.name}; see: loopnet status")
    return number


def _nic(who: str, network: Network, mine: Sequence[Entry], uri: str) -> Nic:
    if who.count(":") == 5:
        mac = check_mac("reserve", who)
        from ..host.kernel.links import devices_with  # pyroute2, which takes its time

        devices = devices_with(mac)
        if devices or mac == network.bridge_mac:
            raise InputError(
                f"{mac} is the MAC address of {(devices or [network.bridge])[0]} on this host; give a guest's, as: "
                "loopnet list"
            )
        return Nic(mac)
    here = [Nic(e.reservation.mac) for e in mine if e.network_name == network.name]
    here = here or _nics_of_domain(who, mine, network, uri)
    if not here:
        raise NotFoundError(
            f"guest {shown(who)} has no NIC in network {network.name}; give it one, or name a MAC address"
        )
    if len(here) > 1:
        macs = ", ".join(nic.mac for nic in here)
        raise InputError(
            f"guest {shown(who)} has {len(here)} NICs in network {network.name}; say which: {macs}"
        )
    return here[0]


def _refuse_own(who: str, mine: Sequence[Entry]) -> None:
    """A guest's own NIC is behind nobody's: it would send as that one, too."""
    own = next((e.reservation.name for e in mine if e.reservation.name), "")
    if own:
        raise InputError(f"{shown(who)} is guest {own}'s own; --behind is for a MAC address within a guest")


def _behind(mac: str, owners: Sequence[Entry], network: Network, who: str) -> Nic:
    """The NIC with the UUID of the guest that it is behind (addresses/behind.py)."""
    mac = check_mac("reserve --behind", mac)
    here = [e.reservation for e in owners if e.network_name == network.name and not is_behind(e.reservation)]
    uuid = next((kept.uuid for kept in here if kept.uuid and kept.mac != mac), "")
    if not uuid:
        raise NotFoundError(
            f"guest {shown(who)} has no NIC in network {network.name} that {mac} could be behind; "
            "give it one and start it, or see: loopnet list"
        )
    return Nic(mac, uuid)


def _nics_of_domain(who: str, mine: Sequence[Entry], network: Network, uri: str) -> list[Nic]:
    """The NICs that the domain ``who`` has in ``network``; its next start will ask for them.

    Reservations in other networks, ``mine``, know it by its UUID.
    """
    from ..daemon.connection import connect

    with connect(uri, read_only=True) as connection:
        found = connection.domains()
    uuids = {entry.reservation.uuid for entry in mine} - {""}
    domains = [info for info in found if info.name == who or info.uuid in uuids]
    return [
        Nic(nic.mac, info.uuid, info.name)
        for info in domains
        for nic in parse_domain(info.live_xml or info.xml).nics
        if nic.network == network.name and nic.mac
    ]
