"""Published ports: parts of table ``ip loopnet`` that are there only while there are any.

Everybody reaches a port of a guest who would reach the same port of the host: the LAN, containers, guests of
libvirt's other networks and of ours, the host itself. So what comes for the host goes to the guest's transit
address, and who asks keeps his own address where the guest can answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from ..model import ANY_ADDRESS, EVERYBODY, LOCALHOST, NATIVE, NONE, Network, Published
from ..prefixes import LOOPBACK, TRANSIT, transit_prefix
from .phrases import LOCAL, braces

_PORTS = "meta l4proto { tcp, udp }"
_SERVICES = "{ 53, 67, 69 }"
"""DNS, DHCP and TFTP: what dnsmasq has at the gateway stays there."""


def published_chains(networks: Sequence[Network], bridges: str, published: Sequence[Published]) -> str:
    """What comes for a port of the host's goes to a guest's transit address instead.

    At 127.0.0.1 only the host itself comes for it, and only where no program had the port before.
    """
    groups = by_clients(published)
    by_name = {network.name: network for network in networks}
    maps = "".join(_maps(clients, by_name, each) for clients, each in groups.items())
    to_guests = "".join(_redirect(clients, _from(clients)) for clients in groups)
    from_host = "".join(_redirect(clients, "") for clients in groups)
    gateways = braces(f'"{n.bridge}" . {address}' for n in networks for address in n.own_transit)
    return f"""\
{maps}\
	chain published {{
{to_guests}	}}
	chain published-to-host {{
{from_host}	}}
	chain at-gateway {{
		{_PORTS} th dport {_SERVICES} accept
		iifname . ip daddr {gateways} goto published
	}}
	chain from-lan {{
		type nat hook prerouting priority -100; policy accept;
{_closed(networks)}		ip daddr {LOOPBACK} accept
		ip daddr {TRANSIT} goto at-gateway
		fib daddr type local goto published
	}}
	chain from-host {{
		type nat hook output priority -100; policy accept;
		ip daddr {LOCALHOST} goto published-to-host
{_spare_local()}		fib daddr type local goto published-to-host
	}}
	chain published-source {{
		type nat hook postrouting priority 99; policy accept;
{"".join(_answerable(network) for network in networks)}\
		oifname {bridges} ct status dnat snat to ip saddr
	}}
"""


def by_clients(published: Iterable[Published]) -> dict[IPv4Network | IPv6Network, list[Published]]:
    """Publications for the same clients."""
    groups: dict[IPv4Network | IPv6Network, list[Published]] = {}
    for each in published:
        groups.setdefault(each.publication.clients, []).append(each)
    return groups


def _maps(
    clients: IPv4Network | IPv6Network, networks: dict[str, Network], published: Iterable[Published]
) -> str:
    here: list[str] = []
    anywhere: list[str] = []
    targets: set[str] = set()
    for name, number, publication, taken in published:
        guest = networks[name].transit_address(number)
        for port, guest_port in publication.pairs:
            element = f"{publication.protocol} . {port} : {guest} . {guest_port}"
            targets.add(f"{guest} . {publication.protocol} . {guest_port}")
            if publication.address != ANY_ADDRESS:
                here.append(f"{publication.address} . {element}")
                continue
            anywhere.append(element)
            if port not in taken:
                here.append(f"{LOCALHOST} . {element}")
    service, at = "inet_proto . inet_service", "ipv4_addr . inet_service"
    return f"""\
	map {_name("published", clients)} {{
		type ipv4_addr . {service} : {at}
{listed(here)}	}}
	map {_name("published-anywhere", clients)} {{
		type {service} : {at}
{listed(anywhere)}	}}
	set {_name("published-to", clients)} {{
		type ipv4_addr . {service}
{listed(sorted(targets))}	}}
"""


def _name(kind: str, clients: IPv4Network | IPv6Network) -> str:
    return kind if clients == EVERYBODY else f"{kind}-{clients}"


def _redirect(clients: IPv4Network | IPv6Network, who: str) -> str:
    """By the address asked for; 127.0.0.1 isn't any of the host's addresses, to those who ask for it."""
    here, anywhere = _name("published", clients), _name("published-anywhere", clients)
    return (
        f"\t\t{who}{_PORTS} dnat ip to ip daddr . meta l4proto . th dport map @{here}\n"
        f"\t\t{who}{_PORTS} ip daddr != {LOOPBACK} dnat ip to meta l4proto . th dport map @{anywhere}\n"
    )


def _from(clients: IPv4Network | IPv6Network) -> str:
    """Guests are known by their loop addresses, and come with their transit addresses."""
    if clients == EVERYBODY:
        return ""
    if isinstance(clients, IPv4Network) and clients.subnet_of(LOOPBACK):
        clients = transit_prefix(clients)
    return f"ip saddr {clients} "


def _closed(networks: Sequence[Network]) -> str:
    """Guests of an isolated network reach no guest of another."""
    bridges = [f'"{network.bridge}"' for network in networks if network.internet == NONE]
    return f"\t\tiifname {braces(bridges)} accept\n" if bridges else ""


def _spare_local() -> str:
    return "".join(f"\t\tip daddr {prefix} accept\n" for prefix in LOCAL)


def listed(elements: Sequence[str]) -> str:
    """A map's or set's, if there are any."""
    return f"\t\telements = {braces(elements)}\n" if elements else ""


def forward_published(published: Sequence[Published]) -> str:
    """What isn't published any more is dropped though it is established, so that it ends at once."""
    inwards = f"ct direction original ct status dnat {_PORTS}"
    accepts = "".join(
        f"\t\t{inwards} {_from(clients)}ip daddr . meta l4proto . th dport"
        f" @{_name('published-to', clients)} accept\n"
        for clients in by_clients(published)
    )
    return f"{accepts}\t\t{inwards} drop\n"


def _answerable(network: Network) -> str:
    """Whom the guest could not answer, it sees as the gateway: another guest, of which it would think that
    it is on its own wire, or that no such address exists; the host as 127.0.0.1; a client whose address is
    in the guest prefix. All others keep their address, and that is decided here, before Docker, libvirt and
    the like masquerade what leaves their own networks: the bridge's address would tell the guest nothing, and
    its answers would not come back."""
    prefixes = [*LOCAL, *([] if network.mode == NATIVE else [network.guest_prefix])]
    gateway = network.transit_address(network.gateway)
    return "".join(
        f'\t\toifname "{network.bridge}" ip saddr {prefix} ct status dnat snat to {gateway}\n'
        for prefix in prefixes
    )


def answers_to_localhost(published: Sequence[Published]) -> list[str]:
    """Rules of input: what 127.0.0.1 asked of a published port is answered from a transit address."""
    return [f"ip daddr {LOCALHOST} ct status dnat ct state established,related accept"] if published else []
