"""The difference between what a host holds and what it should hold, as steps. Pure.

One order serves setup, teardown and repair alike: what must go goes first, then the tables are
replaced, then what is missing is added, route_localnet last. So the guards stand before
route_localnet is set and stay until it is cleared, and lo has its addresses at every moment.
Undoing a setup is planning for the state before it; no inverse is kept anywhere. How a step is
written for ip(8) is at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from ..firewalls.openings import Order, orders
from ..model import Network
from ..prefixes import TRANSIT
from ..records import NamedTuple
from ..ruleset.ipv6_bridge import claims, router
from ..ruleset.moves import Claim, Move, moves
from ..ruleset.tables import delete_tables, make_tables
from . import ipv6
from .lo import plan_lo
from .state import ROUTE_PROTOCOL, Address, HostState, Observed, Route

IP, NFT, NETLINK, CONNTRACK, SYSCTL, HOSTS = "ip", "nft", "netlink", "conntrack", "sysctl", "hosts"

_BY_NETLINK = {NETLINK: "nft can't say it: insert rule bridge loopnet", CONNTRACK: "forget connections of"}


class Step(NamedTuple):
    """One deed: ``tool`` says who does it, ``text`` what, in that tool's own words."""

    tool: str
    text: str

    def __str__(self) -> str:
        if self.tool == NFT:
            return f"nft -f - <<END\n{self.text}END"
        if self.tool == SYSCTL:
            return f"sysctl -w {self.text}"
        if self.tool in _BY_NETLINK:
            return f"# by netlink, {_BY_NETLINK[self.tool]} {self.text}"
        if self.tool == HOSTS:
            return f"# /etc/hosts: {self.text or 'no names'}"
        if self.tool == IP:
            return f"ip {self.text}"
        return str(Order(*self))


def plan(observed: Observed, desired: HostState, tables: str | None = None) -> list[Step]:
    """The steps from ``observed`` to ``desired``; none when they agree.

    ``tables`` is the desired ruleset as nft would list it. Where it or the observed one is unknown,
    the tables are replaced without asking, which costs less than asking.
    """
    return [
        *_remove(observed, desired),
        *_replace_tables(observed, desired, tables),
        *_add(observed, desired),
        *(Step(*order) for order in _orders(observed, desired)),
        *_hosts(observed, desired),
    ]


def _remove(observed: Observed, desired: HostState) -> list[Step]:
    bridges = {network.bridge for network in desired.networks}
    stale = [r for r in _ours(observed.routes) if r not in desired.routes]
    devices = {route.dev for route in stale} - bridges
    steps = [
        Step(SYSCTL, f"net/ipv4/conf/{dev}/route_localnet=0")
        for dev in sorted(devices & observed.route_localnet)
    ]
    if not desired.shrink_lo:
        steps += _ip(plan_lo(observed.lo, observed.routes, False, _is_active(observed)))
    steps += _ip(_route("del", route) for route in sorted(stale, key=str))
    ours = {route.dev for route in _ours(observed.routes)} | bridges
    steps += [Step(SYSCTL, line) for line in ipv6.remove(observed.ipv6, desired.networks, ours)]
    wanted = {(each.dev, each.address) for each in desired.neighbours}
    steps += _ip(
        f"neighbour del {each.address} dev {each.dev}"
        for each in sorted(observed.neighbours)
        if (each.dev, each.address) not in wanted and each.dev in devices | bridges
    )
    kept = set(desired.addresses)
    extra = [a for a in observed.addresses if a not in kept and _is_ours(a, devices | bridges)]
    return steps + _ip(_address("del", address) for address in sorted(extra))


def _is_ours(address: Address, devices: Iterable[str]) -> bool:
    """On a device that has or had our routes, these can only be the gateway's addresses."""
    return address.dev in devices and (address.address in TRANSIT or address.noprefixroute)


def _replace_tables(observed: Observed, desired: HostState, tables: str | None) -> list[Step]:
    if observed.ruleset is not None and observed.ruleset == tables:
        return []
    # The kernel takes its time over what is deleted (a grace period of RCU), were it never there.
    absent = observed.ruleset == ""
    gone = delete_tables(with_ipv6=observed.ipv6.has_table)
    forgotten = [Step(CONNTRACK, str(prefix)) for prefix in _forgotten(desired)]
    if not desired.networks:
        return [] if absent else [*forgotten, Step(NFT, gone)]
    made = script(observed, desired)
    inserted = [each for network in desired.networks for each in inserts(network)]
    return [
        *forgotten,
        Step(NFT, made if absent else gone + made),
        *(Step(NETLINK, str(each)) for each in inserted),
    ]


def _forgotten(desired: HostState) -> list[IPv4Network | IPv6Network]:
    """Prefixes whose connections end while our guards still stand: after them an established connection's packets,
    with addresses of ours put in by its entry, would be routed like any others, and leave by the default route."""
    everything = [] if desired.networks else [TRANSIT]
    return [*everything, *(prefix for network in desired.gone for prefix in network.ipv6_prefixes)]


def script(observed: Observed, desired: HostState) -> str:
    """Our tables as nft is given them, '' for none."""
    is_router = ipv6.is_router(observed.ipv6, desired.networks)
    return make_tables(
        desired.networks,
        desired.guests,
        desired.bindings,
        desired.published,
        desired.reserved,
        is_router,
        desired.published6,
    )


def inserts(network: Network) -> list[Move | Claim]:
    """The rules that netlink puts into them."""
    return [*moves(network), *claims(network), *router(network)]


def _add(observed: Observed, desired: HostState) -> list[Step]:
    # The rules tell by the bridge's MAC address what guests send to the host.
    lines = [
        f"link set dev {network.bridge} address {network.bridge_mac}"
        for network in desired.networks
        if network.bridge_mac and (network.bridge, network.bridge_mac) not in observed.macs
    ]
    missing = [a for a in desired.addresses if a not in observed.addresses]
    lines += [_address("add", address) for address in missing]
    # A fresh address brings its routes along; an old one may have got them back (link down, up).
    fresh = {(address.dev, address.address) for address in missing}
    lines += [
        _route("del", route)
        for route in desired.hidden_routes
        if route in observed.routes or (route.dev, route.source) in fresh
    ]
    lines += [_route("add", route) for route in desired.routes if route not in observed.routes]
    lines += [
        f"neighbour replace {each.address} lladdr {each.mac} dev {each.dev} nud permanent"
        for each in desired.neighbours
        if each not in observed.neighbours
    ]
    if desired.shrink_lo:
        lines += plan_lo(observed.lo, observed.routes, True, _is_active(observed))
    bridges = [network.bridge for network in desired.networks]
    sysctls, lines6 = ipv6.add(observed.ipv6, desired.networks)
    steps6 = [*(Step(SYSCTL, line) for line in sysctls), *_ip(lines6)]
    return (
        _ip(lines)
        + steps6
        + [
            Step(SYSCTL, f"net/ipv4/conf/{bridge}/route_localnet=1")
            for bridge in bridges
            if bridge not in observed.route_localnet
        ]
    )


def _orders(observed: Observed, desired: HostState) -> list[Order]:
    published = {each.network for each in desired.published}
    bridges = [network.bridge for network in desired.gone]
    return orders(observed.firewalls, desired.networks, bridges, published, desired.trusted)


def _hosts(observed: Observed, desired: HostState) -> list[Step]:
    if observed.hosts is None or set(observed.hosts) == set(desired.hosts):
        return []
    entries = [" ".join((str(address), *names)) for address, names in desired.hosts]
    return [Step(HOSTS, "; ".join(entries))]


def _ours(routes: Iterable[Route]) -> list[Route]:
    return [route for route in routes if route.ours and route.dev != "lo"]


def _is_active(observed: Observed) -> bool:
    """Is anything of a network of ours on the host?"""
    return bool(_ours(observed.routes)) or any(a.address in TRANSIT for a in observed.addresses)


def _ip(lines: Iterable[str]) -> list[Step]:
    return [Step(IP, line) for line in lines]


def _address(verb: str, address: Address) -> str:
    line = f"address {verb} {address.address}/{address.length} dev {address.dev}"
    if verb == "del":
        return line
    # iproute2 would give a 127.x address scope host, and no guest's route could use it as source
    broadcast = " brd +" if address.length < 31 and not address.noprefixroute else ""
    return line + broadcast + " scope global" + (" noprefixroute" if address.noprefixroute else "")


def _route(verb: str, route: Route) -> str:
    metric = f" metric {route.metric}" if route.metric else ""
    line = f"route {verb} {route.kind} {route.prefix} dev {route.dev} table local{metric}"
    if not route.ours:
        return line
    source = f" src {route.source}" if route.source else ""
    return f"{line} proto {ROUTE_PROTOCOL} scope link{source}"
