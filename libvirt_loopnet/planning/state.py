"""What a host should hold and what it does hold, in the same terms.

``HostState`` (our addresses, routes in table local, neighbours, rules) is computed from networks, live ports,
reservations and options, never accumulated; what leases and listeners make of it, converge/apply.py adds.
``Observed`` is read from the kernel, never remembered. plan.py compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from ..addresses.behind import is_behind, live_behind
from ..addresses.labels import host_names
from ..addresses.publications import published
from ..addresses.senders import Siblings, binding, guest, siblings
from ..firewalls.openings import Firewalls
from ..model import NATIVE, Binding, Guest, Network, Options, Port, Published, Reservation
from ..records import NamedTuple
from ..validation import is_quotable
from .ipv6 import Observed6

ROUTE_PROTOCOL = 127
"""Marks our routes (rtm_protocol, free in rtnetlink.h and iproute2's rt_protos), so that they are
found and deleted without any record of ours."""


class Address(NamedTuple):
    """An IPv4 address on a device."""

    dev: str
    address: IPv4Address
    length: int
    noprefixroute: bool = False


class LoAddress(NamedTuple):
    """An address on lo, with whatever else ``ip address add`` needs to bring it back as it was."""

    address: IPv4Address
    length: int
    attributes: str = "scope host"


class Route(NamedTuple):
    """An IPv4 route in table local."""

    kind: str
    prefix: IPv4Network
    dev: str
    source: IPv4Address | None
    ours: bool
    """It carries ROUTE_PROTOCOL."""
    metric: int = 0


class Neighbour(NamedTuple):
    """A permanent entry in a bridge's neighbour table."""

    dev: str
    address: IPv4Address
    mac: str


class Observed(NamedTuple):
    """What the kernel holds now."""

    lo: tuple[LoAddress, ...]
    """In the kernel's order."""
    addresses: frozenset[Address]
    """Of all devices but lo."""
    routes: frozenset[Route]
    """All of table local."""
    route_localnet: frozenset[str]
    """Devices on which the sysctl is on, among those that desired state or routes name."""
    ruleset: str | None
    """Our tables as nft lists them, '' when none is there; None: not asked."""
    hosts: tuple[tuple[IPv4Address | IPv6Address, tuple[str, ...]], ...] | None
    """Names that our block in /etc/hosts publishes; None: not asked."""
    firewalls: Firewalls = Firewalls()
    macs: frozenset[tuple[str, str]] = frozenset()
    """(bridge, its MAC address), of the same devices as ``route_localnet``."""
    neighbours: frozenset[Neighbour] = frozenset()
    """Those in the transit prefixes."""
    ipv6: Observed6 = Observed6()


class HostState(NamedTuple):
    """What the host should hold."""

    networks: tuple[Network, ...] = ()
    guests: tuple[Guest, ...] = ()
    bindings: tuple[Binding, ...] = ()
    shrink_lo: bool = False
    hosts: tuple[tuple[IPv4Address | IPv6Address, tuple[str, ...]], ...] = ()
    published: tuple[Published, ...] = ()
    published6: tuple[Published, ...] = ()
    """Those among them whose guests have their address in IPv6."""
    reserved: tuple[tuple[str, int], ...] = ()
    """(network, host number) of all reservations, also of guests that don't run."""
    reached: tuple[tuple[str, int], ...] = ()
    """(network, host number) of all that are reserved in networks with published ports."""
    gone: tuple[Network, ...] = ()
    """Networks that were here: other firewalls, and the kernel's connections, have to forget them."""
    trusted: tuple[str, ...] = ()
    """Tables of others in nft that may be opened, each as family and name."""

    @property
    def addresses(self) -> list[Address]:
        return [address for network in self.networks for address in _addresses(network)]

    @property
    def routes(self) -> list[Route]:
        return [route for network in self.networks for route in _routes(network)]

    @property
    def neighbours(self) -> list[Neighbour]:
        """Where a guest has published ports, all of its network are found at the bridge's own MAC address by
        their transit addresses.

        That is for those of the same network that ask for the port, where br_netfilter is on: the destination
        of what they send, and of the answers, is replaced while it is still a frame, and if the new one is on
        the bridge that the frame came by, the kernel forwards the frame, to the neighbour at that address
        (br_nf_pre_routing_finish_bridge). Sent to the bridge itself, it is routed as it is everywhere else.
        What is routed never asks for such a neighbour.
        """
        by_name = {network.name: network for network in self.networks}
        return [
            Neighbour(by_name[name].bridge, by_name[name].transit_address(number), by_name[name].bridge_mac)
            for name, number in self.reached
        ]

    @property
    def hidden_routes(self) -> list[Route]:
        """Routes that the kernel adds with an address and that must not be there."""
        return [route for network in self.networks for route in _hidden_routes(network)]


def _addresses(network: Network) -> list[Address]:
    host = Address(network.bridge, network.loop_address(network.host), network.loop_prefix.prefixlen)
    owned = [host, *(Address(network.bridge, address, 32) for address in network.own_transit)]
    if network.mode != NATIVE:
        owned.append(_dhcp_context(network))
    return owned


def _dhcp_context(network: Network) -> Address:
    """dnsmasq serves a DHCP range only where an interface has an address in it."""
    gateway = network.guest_address(network.gateway)
    return Address(network.bridge, gateway, network.guest_prefix.prefixlen, noprefixroute=True)


def _routes(network: Network) -> list[Route]:
    """Unicast routes in table local win over lo's /8 also when an ``ip rule`` parts local from main."""
    host, gateway = network.loop_address(network.host), network.transit_address(network.gateway)
    return [
        Route("unicast", network.loop_prefix, network.bridge, host, ours=True),
        Route("unicast", network.transit_prefix, network.bridge, gateway, ours=True),
    ]


def _hidden_routes(network: Network) -> list[Route]:
    """The guest prefix must mean the LAN, if anything, to the host's routing."""
    if network.mode == NATIVE:
        return []
    gateway = network.guest_address(network.gateway)
    broadcast = network.guest_prefix.broadcast_address
    return [
        Route("local", IPv4Network((gateway, 32)), network.bridge, gateway, ours=False),
        Route("broadcast", IPv4Network((broadcast, 32)), network.bridge, gateway, ours=False),
    ]


class Tap(NamedTuple):
    """A device attached to a bridge."""

    name: str
    bridge: str
    alias: str
    """ifalias; we write the guest and its loop address there."""
    mac: str


def desire(
    networks: Iterable[Network],
    reservations: Mapping[str, Sequence[Reservation]],
    ports: Iterable[Port],
    taps: Iterable[Tap],
    options: Options,
) -> HostState:
    """The state for these active ``networks`` with their ``reservations``, live ``ports`` and ``taps``."""
    active = tuple(sorted(networks))
    live = tuple(ports)
    others = {network.name: siblings(reservations.get(network.name, ())) for network in active}
    guests = tuple(sorted(_guests(active, reservations, live, others)))
    ports_of_guests = published(active, reservations)
    reached = {each.network for each in ports_of_guests}
    reserved = tuple(_reserved(active, reservations))
    return HostState(
        networks=active,
        guests=guests,
        bindings=tuple(sorted(_bindings(active, guests, live, taps, others))),
        shrink_lo=bool(active) and options.lo == "shrink",
        hosts=host_names(active, guests) if options.names == "hosts" else (),
        published=ports_of_guests,
        reserved=reserved,
        reached=tuple(each for each in reserved if each[0] in reached),
        trusted=options.open_firewalls,
    )


def _reserved(
    networks: Iterable[Network], reservations: Mapping[str, Sequence[Reservation]]
) -> Iterable[tuple[str, int]]:
    for network in networks:
        mine = {number for kept in reservations.get(network.name, ()) for number in kept.numbers}
        for number in sorted(mine):
            if number in network.guest_numbers:
                yield network.name, number


def _guests(
    networks: Iterable[Network],
    reservations: Mapping[str, Sequence[Reservation]],
    ports: Iterable[Port],
    others: Mapping[str, Siblings],
) -> Iterable[Guest]:
    for network in networks:
        inside = [port for port in ports if port.network == network.name]
        all_kept = reservations.get(network.name, ())
        live = {*(port.mac for port in inside), *(kept.mac for kept in live_behind(all_kept, inside))}
        for kept in all_kept:
            if kept.mac in live:
                yield guest(network.name, kept, others[network.name])


def _bindings(
    networks: Iterable[Network],
    guests: Iterable[Guest],
    ports: Iterable[Port],
    taps: Iterable[Tap],
    others: Mapping[str, Siblings],
) -> Iterable[Binding]:
    by_bridge = {network.bridge: network for network in networks}
    by_address: dict[str, Guest] = {}
    by_tail: dict[tuple[str, str], list[Guest]] = {}
    by_name = {network.name: network for network in by_bridge.values()}
    by_mac = {(live.network, live.mac): live for live in guests}
    told = {(port.network, port.tap): by_mac.get((port.network, port.mac)) for port in ports if port.tap}
    ported = {(port.network, port.mac) for port in ports if not port.tap}
    for live in guests:
        if (live.network, live.mac) not in ported:
            continue  # it is where it was told to be, or behind another
        network = by_name[live.network]
        by_address[str(network.loop_address(live.number))] = live
        by_tail.setdefault((live.network, live.mac[2:]), []).append(live)
    named: dict[str, Guest] = {}
    alike: dict[str, Guest] = {}
    for tap in taps:
        if tap.bridge not in by_bridge or not is_quotable(tap.name):
            continue  # unbound, that NIC has its guards by MAC and address; others must not lose theirs
        name = by_bridge[tap.bridge].name
        owner = told.get((name, tap.name)) or by_address.get(tap.alias.rpartition(" ")[2])
        # libvirt gives a tap its guest's MAC with the first byte 0xfe (virnetdevtap.c)
        guests_alike = by_tail.get((name, tap.mac[2:]), []) if tap.mac.startswith("fe:") else []
        if owner is not None and owner.network == name:
            named[tap.name] = owner
        elif owner is None and len(guests_alike) == 1:
            alike[tap.name] = guests_alike[0]
    # A clone's tap, plugged into the bridge unasked, is like that of whom it is a clone of.
    at_home = {(owner.network, owner.mac) for owner in named.values()}
    unnamed = {tap: owner for tap, owner in alike.items() if (owner.network, owner.mac) not in at_home}
    for device, owner in {**named, **unnamed}.items():
        name = owner.network
        yield binding(name, device, owner.mac, owner.number, others[name])
        for kept in others[name].get(owner.mac, ()):
            if is_behind(kept):
                yield binding(name, device, kept.mac, kept.number, others[name])
