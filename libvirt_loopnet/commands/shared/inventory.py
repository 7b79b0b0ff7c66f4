"""What is known of networks and guests, from files and the kernel, without libvirt.

Root reads libvirt's own record: its status files and definitions. Those are root's alone, so for
anybody else libvirt's read-only socket has to tell; reservations can be read by all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import groupby
from shlex import quote
from typing import NamedTuple

from ...addresses.behind import is_behind
from ...addresses.labels import dns_label, with_suffix
from ...addresses.seen import Seen, judge
from ...addresses.store import Store
from ...daemon import runstate
from ...daemon.definitions import DIRECTORY, guest_names
from ...daemon.domains import LiveNic, live_nics, nics_with_link_down
from ...errors import HostError, InputError, PrivilegeError
from ...guests.interfaces import is_of, spare_name
from ...host import admitted, linux
from ...host.kernel.neighbours import neighbours
from ...host.kernel.stations import stations
from ...host.seen import heard
from ...model import Network, Options, Port, Reservation
from ...networks.parsing import NAMESPACE, parse_network
from ...planning.state import desire
from ...plugging import bridge_ports
from ...plugging.replug import called, virsh
from ...reports.dropped import Dropped, explain

DEFINITIONS = "/etc/libvirt/qemu/networks"
"""Where libvirt keeps the definitions of networks (virNetworkObjLoadAllConfigs); qemu's or not."""

PLACES = ((runstate.RUN, "--live"), (DEFINITIONS, "--config"))
"""Where a network's XML is, and how virsh net-update is told to change it there."""

FEW = 5
"""So many addresses of one NIC are told at once, of those that it has not been given: it may have made up thousands."""

UP, OFF, RESERVED = "up", "off", "reserved"
"""Seen on the bridge and let in; its guest runs, yet it is not; its guest does not run."""


class Networks(NamedTuple):
    """Our networks and who is plugged into them."""

    active: tuple[Network, ...]
    inactive: tuple[Network, ...]
    """Defined, but not active."""
    ports: tuple[Port, ...]
    nics: tuple[LiveNic, ...] = ()
    """Of running guests, all that may belong to ours and are not seen at first sight to be plugged into active ones,
    and all whose link is down."""
    guests: tuple[tuple[str, str], ...] = ()
    """(UUID, libvirt's name) of those it has definitions of."""

    @property
    def known(self) -> tuple[Network, ...]:
        return tuple(sorted((*self.active, *self.inactive)))


class Entry(NamedTuple):
    """A NIC that has a reservation."""

    network_name: str
    reservation: Reservation
    network: Network | None
    """None when its definition is gone, or can't be understood."""
    port: Port | None
    """While libvirt has one for it."""
    tap: str = ""
    state: str = RESERVED
    guest: str = ""
    """Libvirt's name of the domain, '' when it knows it no more, or never did."""
    seen: tuple[IPv4Address, ...] = ()
    """Loop addresses that it was seen to use, and that nobody has reserved."""
    dropped: tuple[IPv4Address, ...] = ()
    """What it sends from and is not let in, as it calls that itself; root alone is told."""
    down: LiveNic | None = None
    """The NIC, if libvirt has its link down."""

    @property
    def loop_address(self) -> IPv4Address | None:
        return self.network.loop_address(self.reservation.number) if self.network else None

    @property
    def ipv6_address(self) -> IPv6Address | None:
        return self.network.ipv6_address(self.reservation.number) if self.network else None

    @property
    def also(self) -> list[IPv4Address]:
        """Further loop addresses that are its alone."""
        return self._further(self.reservation.also)

    @property
    def shared(self) -> list[IPv4Address]:
        """Loop addresses that it may hold in turn with others."""
        return self._further(self.reservation.shared)

    def _further(self, numbers: Iterable[int]) -> list[IPv4Address]:
        return [self.network.loop_address(number) for number in numbers] if self.network else []

    @property
    def dns_name(self) -> str:
        """What the host and guests resolve, '' when there is nothing to resolve."""
        name = self.reservation.name
        return f"{name}.{self.network.domain}" if self.network and name else ""

    @property
    def guest_address(self) -> IPv4Address | None:
        return self.network.guest_address(self.reservation.number) if self.network else None


def networks(uri: str) -> Networks:
    """Our networks; ``uri`` is libvirt's, asked only by who may not read its files."""
    if os.geteuid() == 0:
        return networks_of_files()
    return _networks_of_libvirt(uri)


def networks_of_files(
    run: str = runstate.RUN, definitions: str = DEFINITIONS, guests: str = DIRECTORY
) -> Networks:
    """Our networks by what libvirt has written down."""
    active = runstate.active_networks(run)
    names = {network.name for network in active}
    # the same reader: a definition is a status file without its wrapping
    inactive = [n for n in runstate.active_networks(definitions) if n.name not in names]
    ports = {network: runstate.live_ports(network.name, run) for network in active}
    expected = ((network.bridge, [port.mac for port in ports[network]]) for network in active)
    return Networks(
        active=tuple(active),
        inactive=tuple(inactive),
        ports=tuple(port for each in ports.values() for port in each),
        nics=(*live_nics(bridge_ports.suspects(expected)), *nics_with_link_down()),
        guests=tuple(guest_names(guests).items()),
    )


def read_or_nothing(path: str) -> bytes:
    """A file of libvirt's, b'' if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _networks_of_libvirt(uri: str) -> Networks:
    from ...daemon.connection import connect

    try:
        connection = connect(uri, read_only=True)
    except HostError:
        raise PrivilegeError(
            f"libvirt ({uri}) can't be reached, and without it only root can tell; run this as root"
        ) from None
    active: list[Network] = []
    inactive: list[Network] = []
    ports: list[Port] = []
    nics: list[LiveNic] = []
    with connection:
        nics += connection.live_nics()
        for info in connection.networks():
            network = _network(info.live_xml or info.xml)
            if network and info.active:
                active.append(network)
                ports += connection.ports(info.name)
            elif network:
                inactive.append(network)
        guests = connection.domain_names()
    return Networks(tuple(active), tuple(inactive), tuple(ports), tuple(nics), tuple(guests.items()))


def _network(xml: bytes) -> Network | None:
    try:
        return parse_network(xml) if NAMESPACE.encode() in xml else None
    except InputError:
        return None


def entries(found: Networks, store: Store) -> list[Entry]:
    """Every reserved NIC, by network and host number."""
    by_name = {network.name: network for network in found.known}
    ports = {(port.network, port.mac): port for port in found.ports}
    names = sorted({*store.networks(), *by_name})
    kept = {name: store.load(name) for name in names}
    taps, let_in = _taps(found, kept), admitted.admitted()
    owners = {port.owner_uuid: port.owner for port in found.ports if port.owner_uuid}
    guests = {**dict(found.guests), **owners}
    seen = {network.name: _seen(network, kept[network.name]) for network in found.active}
    down = {nic.interface.tap: nic for nic in found.nics if nic.interface.link_down}
    none = Seen()

    def is_up(tap: str, mac: str, bridge: str) -> bool:
        if let_in is None and not tap:  # not root, to whom nobody tells the device of a container
            return True
        return bridge_ports.is_plugged(tap, bridge) and (let_in is None or let_in.lets_in(tap, mac))

    def entry(name: str, reservation: Reservation) -> Entry:
        network, port = by_name.get(name), ports.get((name, reservation.mac))
        tap = taps.get((name, reservation.mac), "")
        state = OFF if tap or port else RESERVED
        if network and port and is_up(tap, reservation.mac, network.bridge):
            state = UP
        elif network and is_behind(reservation) and not port:
            is_here = (reservation.mac, tap) in stations(network.bridge)
            state = UP if is_here and is_up(tap, reservation.mac, network.bridge) else RESERVED
        used, dropped = seen.get(name, {}).get(reservation.mac, none)
        guest = guests.get(reservation.uuid, "")
        return Entry(name, reservation, network, port, tap, state, guest, used, dropped, down.get(tap))

    return [entry(name, reservation) for name in names for reservation in kept[name]]


def _seen(network: Network, kept: Sequence[Reservation]) -> dict[str, Seen]:
    return judge(network, kept, neighbours(network.bridge), heard(network))


def dropped(listed: Sequence[Entry]) -> Iterator[tuple[Entry, IPv4Address, Dropped]]:
    """What guests send from and are not let in; of each NIC, addresses of its network first."""
    for entry in listed:
        if entry.network and entry.dropped:
            kept = [each.reservation for each in listed if each.network_name == entry.network_name]
            mac = entry.reservation.mac
            told = [(address, explain(entry.network, kept, mac, address)) for address in entry.dropped]
            for address, why in sorted(told, key=lambda each: not each[1].inside):
                yield entry, address, why


def most_dropped(listed: Sequence[Entry]) -> Iterator[Dropped]:
    """The same for people: of each NIC some, the last of which says how many there are."""
    for entry, found in groupby(dropped(listed), key=lambda each: each[0]):
        told = [why for _, _, why in found][:FEW]
        more = len(entry.dropped) - len(told)
        if more:
            told[-1] = told[-1]._replace(what=f"{told[-1].what}; from {more} others as well")
        yield from told


def stranded(found: Networks, listed: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """(what is said of a guest that runs while its network does not, the command that helps)."""
    active = {network.name for network in found.active}
    for entry in listed:
        name = entry.network_name
        if entry.state == OFF and name not in active:
            start = f"virsh net-start {quote(name)}; loopnet sync"
            start = start if entry.network else f"define it again, as: loopnet define {quote(name)}"
            who = entry.guest or entry.reservation.mac
            yield f"guest {who} ({entry.reservation.mac}) runs, and its network {name} does not", start


def links_down(listed: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """(what is said of a NIC whose link libvirt has down, the command that brings it up)."""
    for entry in listed:
        if entry.down:
            nic = entry.down
            what = f"libvirt has the link of {called(nic)} down, on network {entry.network_name}"
            yield what, f"{virsh(nic.driver)} domif-setlink {quote(nic.guest)} {nic.interface.mac} up"


def _taps(found: Networks, kept: dict[str, tuple[Reservation, ...]]) -> dict[tuple[str, str], str]:
    """(network, MAC) -> device on the host, on the bridge or wherever it is."""
    taps = linux.Linux().taps(network.bridge for network in found.active)
    state = desire(found.active, kept, found.ports, taps, Options())
    bound = {(binding.network, binding.mac): binding.tap for binding in state.bindings}
    spare = {network.name: spare_name(network.uuid) for network in found.known}
    told = {
        (name, nic.interface.mac): nic.interface.tap
        for name in {*kept, *spare}  # be it active or not: its guests run all the same
        for nic in found.nics
        if is_of(nic.interface, name, spare.get(name, ""))
    }
    return {**told, **bound}


def find(everything: Sequence[Entry], who: str) -> list[Entry]:
    """The NICs of the guest ``who``: a MAC address, a name, or a name in a network's domain.

    The name is the domain's in libvirt or its DNS label. A second NIC's own name (vm1-7) stands
    for that NIC alone, its guest's name for all.
    """
    return _unqualified(everything, who) or _qualified(everything, who)


def _unqualified(everything: Sequence[Entry], who: str) -> list[Entry]:
    found = [entry for entry in everything if entry.reservation.mac == who.lower()]
    return found or _named(everything, who)


def _named(everything: Sequence[Entry], name: str) -> list[Entry]:
    label = dns_label(name)
    known = [entry for entry in everything if entry.guest == name]
    first = known or [e for e in everything if e.reservation.name == name] if name else []
    first = first or [e for e in everything if label and e.reservation.name == label]
    names = {(e.reservation.uuid, e.reservation.name) for e in first if e.reservation.uuid}
    return [entry for entry in everything if entry in first or _is_further(entry, names)]


def _is_further(entry: Entry, names: set[tuple[str, str]]) -> bool:
    """Is it another NIC of a guest in ``names``, (UUID, name of its first NIC)?

    pool.reserve() calls it LABEL, in another network, or LABEL-NUMBER.
    """
    number, _, uuid, name = entry.reservation[:4]
    plain = name.removesuffix(f"-{number}")
    return any(
        (uuid == owner and first in (name, plain))
        or (uuid, name) == (owner, with_suffix(first, f"-{number}"))
        for owner, first in names
    )


def _qualified(everything: Sequence[Entry], name: str) -> list[Entry]:
    """``vm1.loopnet``, by the network's DNS domain or its name."""
    found = []
    for network_name in sorted({entry.network_name for entry in everything}):
        inside = [entry for entry in everything if entry.network_name == network_name]
        network = inside[0].network
        suffixes = {f".{network_name}", f".{network.domain}" if network else ""} - {""}
        guests = {name[: -len(suffix)] for suffix in suffixes if name.endswith(suffix)}
        found += [entry for guest in sorted(guests) for entry in _unqualified(inside, guest)]
    return found
