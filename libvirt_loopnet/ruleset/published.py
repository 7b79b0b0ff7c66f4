"""Published ports: parts of tables ``ip loopnet`` and ``ip6 loopnet`` that are there only while there are any.

Everybody reaches a port of a guest who would reach the same port of the host: the LAN, containers, guests of
libvirt's other networks and of ours, the host itself. So what comes for the host goes to the guest, and who asks
keeps his own address where the guest can answer it. In IPv4 it goes to the guest's transit address, in IPv6 to its
number's address, once it has that. Who is named with ``--from`` is so in one family.

Not at ::1, as the kernel has no route_localnet in IPv6 (DNAT and SNAT alone were tried in vain): who is refused there
asks 127.0.0.1 next. And in IPv6 the guest itself has no answer where br_netfilter shows IPv6 to these rules: the kernel
replaces the destination while it is a frame, finds it on the same bridge, and bridges it
(br_nf_pre_routing_finish_ipv6() in br_netfilter_ipv6.c) back to the port that it came by, which a bridge never does
(should_deliver() in br_forward.c). In IPv4 the transit address has a neighbour that leads to the bridge itself; here
the guest has one address for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from ..model import ANY_ADDRESS, EVERYBODY, LOCALHOST, NATIVE, NONE, Network, Published
from ..prefixes import LOOPBACK, TRANSIT, transit_prefix
from .phrases import LOCAL, braces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Clients = Union[IPv4Network, IPv6Network]

_PORTS = "meta l4proto { tcp, udp }"
_IPV4, _IPV6 = "ip", "ip6"


def ipv4_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
    """At 127.0.0.1 only the host itself comes for a port, and only where no program had it before."""
    return _chains(
        _IPV4,
        networks,
        published,
        Network.transit_address,
        gateways=[f'"{n.bridge}" . {address}' for n in networks for address in n.own_transit],
        services="{ 53, 67, 69 }",
        ours=str(TRANSIT),
        from_lan=f"ip daddr {LOOPBACK} accept",
        from_host=[
            f"ip daddr {LOCALHOST} goto published-to-host",
            *(f"ip daddr {each} accept" for each in LOCAL),
        ],
        sources=[
            *(rule for network in networks for rule in _seen_as_gateway(network)),
            f"oifname {bridges} ct status dnat snat to ip saddr",
        ],
    )


def ipv6_chains(networks: Sequence[Network], published: Sequence[Published]) -> str:
    """Of ``networks`` with IPv6; other guests, whom a guest would look for on its own wire, and the host itself, it
    sees as the gateway."""
    ours = braces(str(prefix) for network in networks for prefix in network.ipv6_prefixes)
    return _chains(
        _IPV6,
        networks,
        published,
        Network.ipv6_address,
        gateways=[f'"{n.bridge}" . {address}' for n in networks for address in n.ipv6_own],
        services="{ 53, 547 }",
        ours=ours,
        from_lan='iif "lo" accept',
        from_host=["ip6 daddr ::1 accept", f"ip6 daddr {ours} accept"],
        sources=[
            f'oifname "{network.bridge}" ct status dnat {who} snat to {network.ipv6_own[0]}'
            for network in networks
            for who in (f"ip6 saddr {ours}", "fib saddr type local")
        ],
    )


def _chains(
    family: str,
    networks: Sequence[Network],
    published: Sequence[Published],
    guest_address: Callable[[Network, int], object],
    *,
    gateways: Iterable[str],
    services: str,
    ours: str,
    from_lan: str,
    from_host: Iterable[str],
    sources: Iterable[str],
) -> str:
    """What comes for a port of the host's goes to a guest's address instead.

    ``ours`` are guests' and ``gateways``' addresses; at those, ``services`` stay dnsmasq's: DNS, DHCP, TFTP.
    ``from_lan`` and ``from_host`` are what those chains begin with; ``sources`` say as whom guests see who asks.
    """
    groups = _by_clients(published)
    by_name = {network.name: network for network in networks}
    maps = "".join(
        _maps(family, clients, [(each, guest_address(by_name[each.network], each.number)) for each in group])
        for clients, group in groups.items()
    )
    redirects = {clients: _redirects(family, clients) for clients in groups}
    return f"""\
{maps}\
	chain published {{
{_rules(f"{_coming_from(clients)}{rule}" for clients, rules in redirects.items() for rule in rules)}	}}
	chain published-to-host {{
{_rules(rule for rules in redirects.values() for rule in rules)}	}}
	chain at-gateway {{
		{_PORTS} th dport {services} accept
		iifname . {family} daddr {braces(gateways)} goto published
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
		{from_lan}
{_closed(networks)}		{family} daddr {ours} goto at-gateway
		fib daddr type local goto published
	}}
	chain from-host {{
		type nat hook output priority -100; policy accept;
{_rules(from_host)}		fib daddr type local goto published-to-host
	}}
	chain published-source {{
		type nat hook postrouting priority 99; policy accept;
{_rules(sources)}	}}
"""


def _rules(rules: Iterable[str]) -> str:
    return "".join(f"\t\t{rule}\n" for rule in rules)


def _by_clients(published: Iterable[Published]) -> dict[Clients, list[Published]]:
    """Publications for the same clients."""
    groups: dict[Clients, list[Published]] = {}
    for each in published:
        groups.setdefault(each.publication.clients, []).append(each)
    return groups


def _named(kind: str, clients: Clients) -> str:
    """A map or set for these clients; nft takes no colons there."""
    if clients == EVERYBODY:
        return kind
    is_ipv4 = isinstance(clients, IPv4Network)
    first = str(clients.network_address) if is_ipv4 else f"{int(clients.network_address):x}"
    return f"{kind}-{first}/{clients.prefixlen}"


def _coming_from(clients: Clients) -> str:
    """Guests are known by their loop addresses, and come with their transit addresses."""
    if clients == EVERYBODY:
        return ""
    if not isinstance(clients, IPv4Network):
        return f"ip6 saddr {clients} "
    return f"ip saddr {transit_prefix(clients) if clients.subnet_of(LOOPBACK) else clients} "


def _closed(networks: Iterable[Network]) -> str:
    """Guests of an isolated network reach no guest of another."""
    bridges = [f'"{network.bridge}"' for network in networks if network.internet == NONE]
    return f"\t\tiifname {braces(bridges)} accept\n" if bridges else ""


def _maps(family: str, clients: Clients, group: Iterable[tuple[Published, object]]) -> str:
    """Where the ports of a group lead: those at one of the host's addresses, those at any, and the guests'."""
    here: list[str] = []
    anywhere: list[str] = []
    targets: set[str] = set()
    for (_, _, publication, taken), guest in group:
        for port, guest_port in publication.pairs:
            element = f"{publication.protocol} . {port} : {guest} . {guest_port}"
            targets.add(f"{guest} . {publication.protocol} . {guest_port}")
            if publication.address != ANY_ADDRESS:
                here.append(f"{publication.address} . {element}")
                continue
            anywhere.append(element)
            if port not in taken:
                here.append(f"{LOCALHOST} . {element}")
    service, address = "inet_proto . inet_service", "ipv4_addr" if family == _IPV4 else "ipv6_addr"
    text = f"""\
	map {_named("published-anywhere", clients)} {{
		type {service} : {address} . inet_service
{_elements(anywhere)}	}}
	set {_named("published-to", clients)} {{
		type {address} . {service}
{_elements(sorted(targets))}	}}
"""
    if family == _IPV6:  # which knows of no publication at one address
        return text
    return f"""\
	map {_named("published", clients)} {{
		type ipv4_addr . {service} : ipv4_addr . inet_service
{_elements(here)}	}}
{text}"""


def _elements(elements: Sequence[str]) -> str:
    return f"\t\telements = {braces(elements)}\n" if elements else ""


def _redirects(family: str, clients: Clients) -> list[str]:
    """By the address asked for; 127.0.0.1 isn't any of the host's addresses, to those who ask for it."""
    anywhere = f"dnat {family} to meta l4proto . th dport map @{_named('published-anywhere', clients)}"
    if family == _IPV6:
        return [f"{_PORTS} {anywhere}"]
    return [
        f"{_PORTS} dnat ip to ip daddr . meta l4proto . th dport map @{_named('published', clients)}",
        f"{_PORTS} ip daddr != {LOOPBACK} {anywhere}",
    ]


def _seen_as_gateway(network: Network) -> list[str]:
    """Whom the guest could not answer in IPv4, it sees as the gateway: another guest, of which it would think that
    it is on its own wire, or that no such address exists; the host as 127.0.0.1; a client whose address is
    in the guest prefix. All others keep their address, and that is decided here, before Docker, libvirt and
    the like masquerade what leaves their own networks: the bridge's address would tell the guest nothing, and
    its answers would not come back."""
    prefixes = [*LOCAL, *([] if network.mode == NATIVE else [network.guest_prefix])]
    gateway = network.transit_address(network.gateway)
    return [
        f'oifname "{network.bridge}" ip saddr {prefix} ct status dnat snat to {gateway}'
        for prefix in prefixes
    ]


def forwarded(family: str, published: Iterable[Published]) -> str:
    """Rules of what comes for guests: what isn't published any more is dropped though it is established, so that it
    ends at once."""
    inwards = f"ct direction original ct status dnat {_PORTS}"
    accepts = (
        f"{inwards} {_coming_from(clients)}{family} daddr . meta l4proto . th dport"
        f" @{_named('published-to', clients)} accept"
        for clients in _by_clients(published)
    )
    return _rules([*accepts, f"{inwards} drop"])


def answers_to_localhost(published: Sequence[Published]) -> list[str]:
    """Rules of input: what 127.0.0.1 asked of a published port is answered from a transit address."""
    return [f"ip daddr {LOCALHOST} ct status dnat ct state established,related accept"] if published else []
